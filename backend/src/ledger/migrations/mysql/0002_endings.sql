-- Generations that ended because the engine was rebuilt: all up to `ended`. What the rebuild did not count is
-- not written any more: its units are sold again.
CREATE TABLE endings (
    promo BIGINT NOT NULL PRIMARY KEY,
    ended BIGINT NOT NULL
) ENGINE = InnoDB, CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Events that a rebuild counted although they were not here: they may still be written.
CREATE TABLE counted_events (
    promo      BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    sequence   BIGINT NOT NULL,
    PRIMARY KEY (promo, generation, sequence)
) ENGINE = InnoDB, CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Held in common by all who write events, by a rebuild alone. Its number: how many rebuilds there were.
INSERT INTO fences (name, fence) VALUES ('rebuild', 0);
