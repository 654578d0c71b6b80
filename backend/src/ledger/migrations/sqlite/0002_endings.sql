-- Generations that ended because the engine was rebuilt: all up to `ended`. What the rebuild did not count is
-- not written any more: its units are sold again.
CREATE TABLE endings (
    promo INTEGER PRIMARY KEY,
    ended INTEGER NOT NULL
) STRICT;

-- Events that a rebuild counted although they were not here: they may still be written.
CREATE TABLE counted_events (
    promo      INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    sequence   INTEGER NOT NULL,
    PRIMARY KEY (promo, generation, sequence)
) STRICT;

-- Held in common by all who write events, by a rebuild alone. Its number: how many rebuilds there were.
INSERT INTO fences (name, fence) VALUES ('rebuild', 0);
