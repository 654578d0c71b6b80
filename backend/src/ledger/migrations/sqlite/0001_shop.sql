-- The shop: who buys, what is sold, what was ordered and paid.
-- Money is in minor units; times are milliseconds since the Unix epoch.

CREATE TABLE users (
    id            INTEGER PRIMARY KEY,
    tel           TEXT    NOT NULL UNIQUE,
    name          TEXT    NOT NULL,
    password_hash TEXT    NOT NULL,
    gender        INTEGER,
    age           INTEGER,
    created_at    INTEGER NOT NULL
) STRICT;

-- One row for each code that was asked for; the last of a number is the one that is good.
CREATE TABLE otps (
    tel           TEXT    NOT NULL,
    nth           INTEGER NOT NULL,
    digest        BLOB    NOT NULL,
    asked_at      INTEGER NOT NULL,
    expires_at    INTEGER NOT NULL,
    attempts_left INTEGER NOT NULL,
    PRIMARY KEY (tel, nth)
) STRICT, WITHOUT ROWID;
CREATE INDEX otps_by_age ON otps (asked_at);

CREATE TABLE items (
    id          INTEGER PRIMARY KEY,
    title       TEXT    NOT NULL,
    price       INTEGER NOT NULL CHECK (price >= 0),
    stock       INTEGER NOT NULL,
    description TEXT    NOT NULL,
    sales       INTEGER NOT NULL DEFAULT 0,
    img_url     TEXT    NOT NULL
) STRICT;

-- What was published, as the engine has to know it again if it loses its memory.
CREATE TABLE publishings (
    promo      INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    digest     TEXT    NOT NULL,
    terms      TEXT    NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (promo, generation)
) STRICT, WITHOUT ROWID;

-- Buyer and item are not foreign keys: an accepted order is written, whatever became of them.
-- idempotency_key, body and jti: what it was asked with.
CREATE TABLE orders (
    id              TEXT    PRIMARY KEY,
    promo           INTEGER NOT NULL,
    generation      INTEGER NOT NULL,
    number          INTEGER NOT NULL,
    buyer           INTEGER NOT NULL,
    item            INTEGER NOT NULL,
    amount          INTEGER NOT NULL CHECK (amount > 0),
    unit_price      INTEGER NOT NULL CHECK (unit_price >= 0),
    state           TEXT    NOT NULL
        CHECK (state IN ('written', 'paid', 'cancelled', 'expired', 'refund_due')),
    created_at      INTEGER NOT NULL,
    written_at      INTEGER NOT NULL,
    pay_by          INTEGER NOT NULL,
    current_number  INTEGER NOT NULL,
    idempotency_key TEXT    NOT NULL,
    body            TEXT    NOT NULL,
    jti             TEXT    NOT NULL,
    paid_at         INTEGER,
    ended_at        INTEGER,
    UNIQUE (promo, generation, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX orders_of_buyer ON orders (buyer, created_at);
CREATE INDEX orders_unpaid ON orders (pay_by) WHERE state = 'written';

-- Append-only: every change of a promo's available stock, under the engine's sequence number.
CREATE TABLE stock_movements (
    promo      INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    sequence   INTEGER NOT NULL CHECK (sequence > 0),
    kind       TEXT    NOT NULL
        CHECK (kind IN ('published', 'added', 'reserved', 'reserved_again', 'released')),
    delta      INTEGER NOT NULL,
    order_id   TEXT,
    number     INTEGER,
    buyer      INTEGER,
    at         INTEGER NOT NULL,
    PRIMARY KEY (promo, generation, sequence)
) STRICT, WITHOUT ROWID;
CREATE INDEX stock_movements_of_order ON stock_movements (order_id) WHERE order_id IS NOT NULL;
CREATE TRIGGER stock_movements_stay BEFORE UPDATE ON stock_movements
BEGIN SELECT RAISE (ABORT, 'stock movements are append-only'); END;
CREATE TRIGGER stock_movements_are_kept BEFORE DELETE ON stock_movements
BEGIN SELECT RAISE (ABORT, 'stock movements are append-only'); END;

-- Units of orders that ended unpaid, on their way back. Written in the transaction that ends the order.
CREATE TABLE releases (
    order_id TEXT    NOT NULL REFERENCES orders (id),
    number   INTEGER NOT NULL,
    amount   INTEGER NOT NULL,
    state    TEXT    NOT NULL CHECK (state IN ('pending', 'done')),
    ended_at INTEGER NOT NULL,
    tried_at INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, number)
) STRICT, WITHOUT ROWID;
CREATE INDEX releases_pending ON releases (tried_at) WHERE state = 'pending';

-- `late`: came after the order had ended; whether its units can be reserved again is not settled.
CREATE TABLE payments (
    reference   TEXT    PRIMARY KEY,
    order_id    TEXT    NOT NULL REFERENCES orders (id),
    amount      INTEGER NOT NULL,
    state       TEXT    NOT NULL CHECK (state IN ('accepted', 'late', 'refund_due')),
    received_at INTEGER NOT NULL,
    tried_at    INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;
CREATE INDEX payments_of_order ON payments (order_id);
CREATE INDEX payments_late ON payments (tried_at) WHERE state = 'late';

CREATE TABLE operator_log (
    id      INTEGER PRIMARY KEY,
    at      INTEGER NOT NULL,
    who     TEXT    NOT NULL,
    what    TEXT    NOT NULL,
    outcome TEXT    NOT NULL
) STRICT;

-- For each lease the greatest number under which its holder wrote here.
CREATE TABLE fences (
    name  TEXT    PRIMARY KEY,
    fence INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO fences (name, fence) VALUES ('sweeper', 0);
