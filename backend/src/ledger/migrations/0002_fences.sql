-- For each lease the greatest number under which its holder wrote here.
CREATE TABLE fences (
    name  VARCHAR(64) NOT NULL PRIMARY KEY,
    fence BIGINT      NOT NULL
);
INSERT INTO fences (name, fence) VALUES ('sweeper', 0);
