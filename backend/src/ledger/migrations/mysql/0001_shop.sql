-- The shop: who buys, what is sold, what was ordered and paid.
-- Money is in minor units; times are milliseconds since the Unix epoch.
--
-- Texts are compared byte by byte (utf8mb4_bin), whatever the database's default is.
-- The triggers need the right TRIGGER and, on a server that writes a binary log (MySQL by default),
-- log_bin_trust_function_creators = 1 while this file is applied.

CREATE TABLE users (
    id            BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    tel           VARCHAR(64)  NOT NULL UNIQUE,
    name          VARCHAR(512) NOT NULL,
    password_hash VARCHAR(512) NOT NULL,
    gender        BIGINT,
    age           BIGINT,
    created_at    BIGINT       NOT NULL
) ENGINE = InnoDB, CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- One row for each code that was asked for; the last of a number is the one that is good.
CREATE TABLE otps (
    tel           VARCHAR(64)   NOT NULL,
    nth           BIGINT        NOT NULL,
    digest        VARBINARY(64) NOT NULL,
    asked_at      BIGINT        NOT NULL,
    expires_at    BIGINT        NOT NULL,
    attempts_left BIGINT        NOT NULL,
    PRIMARY KEY (tel, nth),
    INDEX otps_by_age (asked_at)
) ENGINE = InnoDB, CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE items (
    id          BIGINT     NOT NULL PRIMARY KEY,
    title       TEXT       NOT NULL,
    price       BIGINT     NOT NULL CHECK (price >= 0),
    stock       BIGINT     NOT NULL,
    description MEDIUMTEXT NOT NULL,
    sales       BIGINT     NOT NULL DEFAULT 0,
    img_url     TEXT       NOT NULL
) ENGINE = InnoDB, CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- What was published, as the engine has to know it again if it loses its memory.
CREATE TABLE publishings (
    promo      BIGINT       NOT NULL,
    generation BIGINT       NOT NULL,
    digest     VARCHAR(512) NOT NULL,
    terms      MEDIUMTEXT   NOT NULL,
    at         BIGINT       NOT NULL,
    PRIMARY KEY (promo, generation)
) ENGINE = InnoDB, CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Buyer and item are not foreign keys: an accepted order is written, whatever became of them.
-- idempotency_key, body and jti: what it was asked with.
CREATE TABLE orders (
    id              VARCHAR(64)  NOT NULL PRIMARY KEY,
    promo           BIGINT       NOT NULL,
    generation      BIGINT       NOT NULL,
    number          BIGINT       NOT NULL,
    buyer           BIGINT       NOT NULL,
    item            BIGINT       NOT NULL,
    amount          BIGINT       NOT NULL CHECK (amount > 0),
    unit_price      BIGINT       NOT NULL CHECK (unit_price >= 0),
    state           VARCHAR(16)  NOT NULL
        CHECK (state IN ('written', 'paid', 'cancelled', 'expired', 'refund_due')),
    created_at      BIGINT       NOT NULL,
    written_at      BIGINT       NOT NULL,
    pay_by          BIGINT       NOT NULL,
    current_number  BIGINT       NOT NULL,
    idempotency_key VARCHAR(512) NOT NULL,
    body            VARCHAR(512) NOT NULL,
    jti             VARCHAR(64)  NOT NULL,
    paid_at         BIGINT,
    ended_at        BIGINT,
    UNIQUE INDEX orders_by_number (promo, generation, number),
    INDEX orders_of_buyer (buyer, created_at),
    INDEX orders_unpaid (state, pay_by)
) ENGINE = InnoDB, CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Append-only: every change of a promo's available stock, under the engine's sequence number.
CREATE TABLE stock_movements (
    promo      BIGINT      NOT NULL,
    generation BIGINT      NOT NULL,
    sequence   BIGINT      NOT NULL CHECK (sequence > 0),
    kind       VARCHAR(16) NOT NULL
        CHECK (kind IN ('published', 'added', 'reserved', 'reserved_again', 'released')),
    delta      BIGINT      NOT NULL,
    order_id   VARCHAR(64),
    number     BIGINT,
    buyer      BIGINT,
    at         BIGINT      NOT NULL,
    PRIMARY KEY (promo, generation, sequence),
    INDEX stock_movements_of_order (order_id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
CREATE TRIGGER stock_movements_stay BEFORE UPDATE ON stock_movements FOR EACH ROW
SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'stock movements are append-only';
CREATE TRIGGER stock_movements_are_kept BEFORE DELETE ON stock_movements FOR EACH ROW
SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'stock movements are append-only';

-- Units of orders that ended unpaid, on their way back. Written in the transaction that ends the order.
CREATE TABLE releases (
    order_id VARCHAR(64) NOT NULL,
    number   BIGINT      NOT NULL,
    amount   BIGINT      NOT NULL,
    state    VARCHAR(16) NOT NULL CHECK (state IN ('pending', 'done')),
    ended_at BIGINT      NOT NULL,
    tried_at BIGINT      NOT NULL DEFAULT 0,
    PRIMARY KEY (order_id, number),
    INDEX releases_pending (state, tried_at),
    FOREIGN KEY (order_id) REFERENCES orders (id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- `late`: came after the order had ended; whether its units can be reserved again is not settled.
CREATE TABLE payments (
    reference   VARCHAR(512) NOT NULL PRIMARY KEY,
    order_id    VARCHAR(64)  NOT NULL,
    amount      BIGINT       NOT NULL,
    state       VARCHAR(16)  NOT NULL CHECK (state IN ('accepted', 'late', 'refund_due')),
    received_at BIGINT       NOT NULL,
    tried_at    BIGINT       NOT NULL DEFAULT 0,
    INDEX payments_late (state, tried_at),
    FOREIGN KEY (order_id) REFERENCES orders (id)
) ENGINE = InnoDB, CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE operator_log (
    id      BIGINT       NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at      BIGINT       NOT NULL,
    who     VARCHAR(512) NOT NULL,
    what    TEXT         NOT NULL,
    outcome VARCHAR(512) NOT NULL
) ENGINE = InnoDB, CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- For each lease the greatest number under which its holder wrote here.
CREATE TABLE fences (
    name  VARCHAR(64) NOT NULL PRIMARY KEY,
    fence BIGINT      NOT NULL
) ENGINE = InnoDB, CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
INSERT INTO fences (name, fence) VALUES ('sweeper', 0);
