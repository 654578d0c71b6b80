-- The shop: who buys, what is sold, what was ordered and paid.
-- Money is in minor units; times are milliseconds since the Unix epoch.
--
-- Keys are compared byte by byte (COLLATE "C"), whatever the database's default is.

CREATE TABLE users (
    id            BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tel           TEXT COLLATE "C" NOT NULL UNIQUE,
    name          TEXT   NOT NULL,
    password_hash TEXT   NOT NULL,
    gender        BIGINT,
    age           BIGINT,
    created_at    BIGINT NOT NULL
);

-- One row for each code that was asked for; the last of a number is the one that is good.
CREATE TABLE otps (
    tel           TEXT COLLATE "C" NOT NULL,
    nth           BIGINT NOT NULL,
    digest        BYTEA  NOT NULL,
    asked_at      BIGINT NOT NULL,
    expires_at    BIGINT NOT NULL,
    attempts_left BIGINT NOT NULL,
    PRIMARY KEY (tel, nth)
);
CREATE INDEX otps_by_age ON otps (asked_at);

-- Its rows are changed all the time, and found by their key: room is left for new versions of them.
CREATE TABLE items (
    id          BIGINT PRIMARY KEY,
    title       TEXT   NOT NULL,
    price       BIGINT NOT NULL CHECK (price >= 0),
    stock       BIGINT NOT NULL,
    description TEXT   NOT NULL,
    sales       BIGINT NOT NULL DEFAULT 0,
    img_url     TEXT   NOT NULL
) WITH (fillfactor = 50);

-- What was published, as the engine has to know it again if it loses its memory.
CREATE TABLE publishings (
    promo      BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    digest     TEXT   NOT NULL,
    terms      TEXT   NOT NULL,
    at         BIGINT NOT NULL,
    PRIMARY KEY (promo, generation)
);

-- Buyer and item are not foreign keys: an accepted order is written, whatever became of them.
-- idempotency_key, body and jti: what it was asked with.
CREATE TABLE orders (
    id              TEXT COLLATE "C" PRIMARY KEY,
    promo           BIGINT NOT NULL,
    generation      BIGINT NOT NULL,
    number          BIGINT NOT NULL,
    buyer           BIGINT NOT NULL,
    item            BIGINT NOT NULL,
    amount          BIGINT NOT NULL CHECK (amount > 0),
    unit_price      BIGINT NOT NULL CHECK (unit_price >= 0),
    state           TEXT   NOT NULL
        CHECK (state IN ('written', 'paid', 'cancelled', 'expired', 'refund_due')),
    created_at      BIGINT NOT NULL,
    written_at      BIGINT NOT NULL,
    pay_by          BIGINT NOT NULL,
    current_number  BIGINT NOT NULL,
    idempotency_key TEXT COLLATE "C" NOT NULL,
    body            TEXT   NOT NULL,
    jti             TEXT COLLATE "C" NOT NULL,
    paid_at         BIGINT,
    ended_at        BIGINT,
    UNIQUE (promo, generation, number)
);
CREATE INDEX orders_of_buyer ON orders (buyer, created_at);
CREATE INDEX orders_unpaid ON orders (pay_by) WHERE state = 'written';

-- Append-only: every change of a promo's available stock, under the engine's sequence number.
CREATE TABLE stock_movements (
    promo      BIGINT NOT NULL,
    generation BIGINT NOT NULL,
    sequence   BIGINT NOT NULL CHECK (sequence > 0),
    kind       TEXT   NOT NULL
        CHECK (kind IN ('published', 'added', 'reserved', 'reserved_again', 'released')),
    delta      BIGINT NOT NULL,
    order_id   TEXT COLLATE "C",
    number     BIGINT,
    buyer      BIGINT,
    at         BIGINT NOT NULL,
    PRIMARY KEY (promo, generation, sequence)
);
CREATE INDEX stock_movements_of_order ON stock_movements (order_id) WHERE order_id IS NOT NULL;
CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
'BEGIN RAISE EXCEPTION ''stock movements are append-only''; END';
CREATE TRIGGER stock_movements_stay BEFORE UPDATE OR DELETE OR TRUNCATE ON stock_movements
    FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Units of orders that ended unpaid, on their way back. Written in the transaction that ends the order.
CREATE TABLE releases (
    order_id TEXT COLLATE "C" NOT NULL REFERENCES orders (id),
    number   BIGINT NOT NULL,
    amount   BIGINT NOT NULL,
    state    TEXT   NOT NULL CHECK (state IN ('pending', 'done')),
    ended_at BIGINT NOT NULL,
    tried_at BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, number)
);
CREATE INDEX releases_pending ON releases (tried_at) WHERE state = 'pending';

-- `late`: came after the order had ended; whether its units can be reserved again is not settled.
CREATE TABLE payments (
    reference   TEXT COLLATE "C" PRIMARY KEY,
    order_id    TEXT COLLATE "C" NOT NULL REFERENCES orders (id),
    amount      BIGINT NOT NULL,
    state       TEXT   NOT NULL CHECK (state IN ('accepted', 'late', 'refund_due')),
    received_at BIGINT NOT NULL,
    tried_at    BIGINT NOT NULL DEFAULT 0
);
CREATE INDEX payments_of_order ON payments (order_id);
CREATE INDEX payments_late ON payments (tried_at) WHERE state = 'late';

CREATE TABLE operator_log (
    id      BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at      BIGINT NOT NULL,
    who     TEXT   NOT NULL,
    what    TEXT   NOT NULL,
    outcome TEXT   NOT NULL
);

-- For each lease the greatest number under which its holder wrote here.
CREATE TABLE fences (
    name  TEXT COLLATE "C" PRIMARY KEY,
    fence BIGINT NOT NULL
);
INSERT INTO fences (name, fence) VALUES ('sweeper', 0);
