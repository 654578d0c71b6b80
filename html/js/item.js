// The item page: shows the item, follows its promo, and makes the purchase when asked.
import { get } from "./api.js";
import { Countdown } from "./countdown.js";
import { money, moment, showPicture, showPrice } from "./format.js";
import { Promo } from "./promo.js";
import { buy, unfinished } from "./purchase.js";
import { forget, signedIn, signInLink } from "./session.js";
import { complain, say } from "./status.js";

const element = (id) => document.getElementById(id);
const countdown = new Countdown(element("countdown"));
const button = element("buy");
let promo, shown, busy = false;

const PHASES = {
  upcoming: ["soon", "Coming up", "Not open yet"],
  live: ["on", "On sale now", "Buy now"],
  soldOut: ["", "Sold out", "Sold out"],
  paused: ["soon", "Paused for a moment", "Paused"],
  ended: ["", "This sale has ended", "Ended"],
  closed: ["", "This sale is closed", "Closed"],
};

async function open() {
  const item = await get("/item/get", { id: new URLSearchParams(location.search).get("id") ?? "" });
  showItem(item);
  if (!item.promoId || item.promoStatus === 0) return showUnpromoted();
  promo = new Promo(item.promoId, showPromo);
  await promo.refresh();
}

function showItem(item) {
  document.title = item.title + " · Floodgate";
  element("title").textContent = item.title;
  element("description").textContent = item.description;
  element("facts").textContent = item.sales > 0 ? `${item.sales} sold so far` : "";
  showPrice(element("price"), item, item.promoStatus > 0);
  showPicture(element("picture"), item);
  element("buy").after(element("status"));
  element("item").hidden = false;
}

function showUnpromoted() {
  element("phase").textContent = "Not on sale";
  element("when").textContent = "There is no sale of this item at the moment.";
}

function showPromo() {
  if (!promo.state) return complain(promo.failed);
  const phase = promo.phase;
  if (!busy) showButton();
  if (phase === shown) return;
  if (shown === undefined && !element("status").textContent) invite(phase);
  shown = phase;
  const [look, title] = PHASES[phase];
  const { startsAt, endsAt, perBuyerLimit, price } = promo.state;
  element("phase").className = "badge " + look;
  element("phase").textContent = title;
  element("phase").dataset.phase = phase;
  element("price").firstChild.data = money(price);
  offerAmounts(phase, perBuyerLimit);
  countTo(phase, startsAt, endsAt);
}

function invite(phase) {
  if (!signedIn() && (phase === "upcoming" || phase === "live")) {
    say(phase === "live" ? "You need an account to buy." : "Be ready: sign in before the sale starts.", signInLink());
  }
}

function countTo(phase, startsAt, endsAt) {
  const open = phase === "live" || phase === "soldOut" || phase === "paused";
  element("when").textContent =
    phase === "upcoming" ? `Starts ${moment(startsAt)}` : open ? "Ends in" : `It ran until ${moment(endsAt)}.`;
  if (phase === "upcoming") countdown.to(startsAt, showPromo);
  else if (open) countdown.to(endsAt, showPromo);
  else countdown.stop();
}

function offerAmounts(phase, limit) {
  const field = element("amount");
  element("amounts").hidden = phase !== "live" || limit < 2;
  if (field.length) return;
  for (let n = 1; n <= Math.min(limit || 1, 10); n++) field.add(new Option(n, n));
}

function showButton() {
  const resuming = unfinished(promo.state.promoId);
  button.hidden = false;
  button.disabled = busy || (promo.phase !== "live" && !resuming);
  button.textContent = busy ? "Working…" : resuming ? "Finish your order" : PHASES[promo.phase][2];
}

function setBusy(yes) {
  busy = yes;
  button.setAttribute("aria-busy", yes);
  showButton();
}

button.addEventListener("click", async () => {
  if (busy) return;
  setBusy(true);
  try {
    const orderId = await buy(promo.state, Number(element("amount").value));
    say("It is yours. Opening your order…");
    location.assign("/resources/order.html?id=" + encodeURIComponent(orderId));
  } catch (refusal) {
    setBusy(false);
    explain(refusal);
  }
});

function explain(refusal) {
  if (refusal.code === 20003) {
    forget();
    return complain(refusal, signInLink());
  }
  complain(refusal, refusal.code === 30006 ? { href: "/resources/order.html", text: "See your orders" } : undefined);
  if ([30001, 30003, 30009].includes(refusal.code)) promo.refresh();
}

// Coming back with the browser's Back button finds the page as it was left: busy.
addEventListener("pageshow", ({ persisted }) => {
  if (!persisted || !promo?.state) return;
  setBusy(false);
  say("");
  promo.refresh();
});

open().catch(complain);
