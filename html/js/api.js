// Talks to the shop: JSON in, `data` out. Every refusal is thrown as words, a code, and how long to wait.
import { words } from "./words.js";

export class Refusal extends Error {
  constructor(code, message, status = 0, retryAfterMs = 0) {
    super(words(code, message));
    Object.assign(this, { code, status, retryAfterMs });
  }
}

const LOST = 0; // no readable answer: it may or may not have happened

export const get = (path, query = {}) => ask(path + (Object.keys(query).length ? "?" + new URLSearchParams(query) : ""), {});

export const post = (path, body = {}, headers = {}) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json", ...headers }, body: JSON.stringify(body) });

// Repeats a call that is safe to repeat, while waiting can help: lost answers, a busy shop, a rate limit.
export async function insist(call, onWait = () => {}, attempts = 5) {
  for (let n = 1; ; n++) {
    try {
      return await call();
    } catch (refusal) {
      const wait = refusal.retryAfterMs || 400 * 2 ** n;
      if (n === attempts || !waitingHelps(refusal) || wait > 30_000) throw refusal;
      onWait(refusal, wait);
      await sleep(wait + Math.random() * 300);
    }
  }
}

export const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

function waitingHelps({ code, retryAfterMs }) {
  const opensAnyMoment = code === 30003 && retryAfterMs > 0 && retryAfterMs <= 2000;
  return code === LOST || code === 30002 || code === 30008 || opensAnyMoment;
}

async function ask(path, options) {
  const slow = new AbortController();
  const timer = setTimeout(() => slow.abort(), 15_000);
  let answer, body;
  try {
    answer = await fetch(path, { credentials: "same-origin", cache: "no-cache", signal: slow.signal, ...options });
    body = await answer.json();
  } catch {
    throw new Refusal(LOST, "", answer?.status, retryAfterMs(answer));
  } finally {
    clearTimeout(timer);
  }
  if (body?.status === "success") return body.data;
  throw new Refusal(body?.data?.errCode ?? LOST, body?.data?.errMsg, answer.status, retryAfterMs(answer));
}

const retryAfterMs = (answer) => 1000 * (parseInt(answer?.headers.get("Retry-After"), 10) || 0);
