// One purchase: check, access token, order. An attempt keeps its token and key until the shop has answered,
// so that trying again after a lost answer, or a reload, is the same order and never a second one.
import { insist, post } from "./api.js";
import { solve } from "./challenge.js";
import { now } from "./clock.js";
import { say } from "./status.js";

const CHECKS = 3; // in a row, before the buyer is told
const slot = (promoId) => "floodgate.attempt." + promoId;
let solved = null; // an answer that the shop has not spent: the door was full, or the answer was lost

export async function buy(promo, amount) {
  const attempt = kept(promo.promoId) ?? (await begin(promo, amount));
  say("Placing your order…");
  try {
    const order = await insist(() => post("/order/create", attempt.body, { "Idempotency-Key": attempt.key }), waiting);
    sessionStorage.removeItem(slot(promo.promoId));
    return order.orderId;
  } catch (refusal) {
    if (settled(refusal)) sessionStorage.removeItem(slot(promo.promoId));
    throw refusal;
  }
}

// Begun and not yet answered: it may be an order already, so it can be finished even after the sale.
export const unfinished = (promoId) => kept(promoId) !== null;

const kept = (promoId) => JSON.parse(sessionStorage.getItem(slot(promoId)));

async function begin({ promoId, itemId, challenge }, amount) {
  const { token } = await accessToken(promoId, itemId, challenge);
  const attempt = { key: randomKey(), body: { itemId, promoId, amount, token } };
  sessionStorage.setItem(slot(promoId), JSON.stringify(attempt));
  return attempt;
}

async function accessToken(promoId, itemId, offered) {
  for (let n = 1; ; n++) {
    if (!solved || solved.promoId !== promoId || solved.expiresAt < now()) {
      say(n === 1 ? "One quick check, then your order." : "The check was not passed. Here is another try.");
      solved = { promoId, ...(await solve(promoId, offered, waiting)) };
    }
    const { challenge, answer } = solved;
    say("Asking for your place…");
    try {
      const token = await insist(() => post("/order/generatetoken", { promoId, itemId, challenge, answer }), waiting);
      solved = null;
      return token;
    } catch (refusal) {
      if (![0, 30007, 30008].includes(refusal.code)) solved = null;
      if (refusal.code !== 30004 || n === CHECKS) throw refusal;
    }
  }
}

const waiting = (refusal, ms) => say(`${refusal.message} Trying again in ${Math.ceil(ms / 1000)} s…`);

// A clear no ends the attempt; busy, lost, paused or signed out do not.
const settled = ({ status, code }) => status >= 400 && status < 500 && code !== 30002 && code !== 20003;

function randomKey() {
  if (crypto.randomUUID) return crypto.randomUUID();
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
