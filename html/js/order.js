// One order, followed until it is settled, with pay and cancel; without an id, all of the buyer's orders.
import { get, insist, post } from "./api.js";
import { sample } from "./clock.js";
import { Countdown } from "./countdown.js";
import { money, moment, showPicture } from "./format.js";
import { forget, remember, signedIn, signInLink } from "./session.js";
import { complain, say } from "./status.js";

const STATES = {
  reserved: ["soon", "Reserved", "Your unit is set aside. We are writing your order into the books."],
  written: ["on", "Waiting for payment", "Your order is in. Pay in time to keep it."],
  paid: ["on", "Paid", "Thank you. It is yours and on its way."],
  cancelled: ["", "Cancelled", "You cancelled this order. Nothing was charged."],
  expired: ["", "Expired", "It was not paid in time, so the unit went back to the shop."],
  refund_due: ["soon", "Refund due", "Your payment came after the unit was gone. You will get it back in full."],
};
const POLL_MS = { reserved: 1200, written: 5000 };

const element = (id) => document.getElementById(id);
const orderId = new URLSearchParams(location.search).get("id");
const countdown = new Countdown(element("countdown"));
let order, timer, busy = false;

async function openOne() {
  await follow();
  if (!order) return;
  const [item] = await Promise.allSettled([
    get("/item/get", { id: order.itemId }),
    sample(() => get("/promo/state", { id: order.promoId })),
  ]);
  element("item-title").textContent = item.value?.title ?? "Item " + order.itemId;
  element("item-link").href = "/resources/item.html?id=" + encodeURIComponent(order.itemId);
  showPicture(element("picture"), item.value);
  showTimeLeft();
}

async function follow() {
  clearTimeout(timer);
  let wait;
  try {
    show(await get("/order/get", { id: orderId }));
    wait = POLL_MS[order.state];
  } catch (refusal) {
    if (!order || refusal.code === 20003) explain(refusal);
    if (refusal.status < 400 || refusal.status >= 429) wait = Math.max(refusal.retryAfterMs, 5000);
  }
  clearTimeout(timer);
  if (wait) timer = setTimeout(follow, wait * (1 + Math.random() / 3));
}

function show(next) {
  if (!order && element("status").className === "bad") say("");
  const changed = order?.state !== next.state || order?.payBy !== next.payBy;
  order = next;
  if (!changed) return;
  const [look, title, text] = STATES[order.state] ?? ["", order.state, ""];
  element("order-state").className = "badge " + look;
  element("order-state").textContent = title;
  element("order-state").dataset.state = order.state;
  element("explanation").textContent = text;
  element("order-id").textContent = order.orderId;
  element("order-amount").textContent = order.amount + " × " + money(order.unitPrice);
  element("order-total").textContent = money(order.total);
  element("order-created").textContent = moment(order.createdAt);
  element("actions").hidden = order.state !== "written";
  element("cancel-sure").hidden = true;
  element("actions").before(element("status"));
  element("order").hidden = false;
  showTimeLeft();
}

function showTimeLeft() {
  const counting = order.state === "written" && order.payBy;
  element("pay-by").hidden = !counting;
  if (counting) countdown.to(order.payBy, follow);
  else countdown.stop();
}

async function act(path, doing, done) {
  if (busy) return;
  setBusy(true);
  say(doing);
  try {
    await retryWhileUnwritten(() => post(path, { orderId: order.orderId }));
    say(done);
  } catch (refusal) {
    explain(refusal);
  }
  await follow();
  setBusy(false);
}

// "In another state, try again in a moment": the order is not in the books yet.
async function retryWhileUnwritten(call) {
  const insistent = () => call().catch((refusal) => {
    if (refusal.code === 30010 && refusal.retryAfterMs) refusal.code = 30008;
    throw refusal;
  });
  return insist(insistent, (refusal) => say(refusal.message));
}

function setBusy(yes) {
  busy = yes;
  for (const id of ["pay", "cancel", "cancel-confirm"]) element(id).disabled = yes;
}

async function openList() {
  const [orders, items] = await Promise.all([get("/order/list"), get("/item/list").catch(() => [])]);
  const byId = new Map(items.map((item) => [String(item.id), item]));
  element("orders").replaceChildren(...orders.map((each) => row(each, byId.get(String(each.itemId)))));
  element("order-list").hidden = false;
  if (!orders.length) say("You have no orders yet.", { href: "/", text: "To the shop" });
}

function row(each, item) {
  const row = element("row").content.cloneNode(true);
  const [look, title] = STATES[each.state] ?? ["", each.state];
  row.querySelector("a").textContent = item?.title ?? "Item " + each.itemId;
  row.querySelector("a").href = "?id=" + encodeURIComponent(each.orderId);
  row.querySelector(".soft").textContent = `${money(each.total)} · ${moment(each.createdAt)}`;
  row.querySelector(".badge").textContent = title;
  row.querySelector(".badge").className = "badge " + look;
  showPicture(row.querySelector(".picture"), item);
  return row;
}

function explain(refusal) {
  if (refusal.code !== 20003) return complain(refusal);
  forget();
  complain(refusal, signInLink());
}

element("pay").addEventListener("click", () => act("/order/pay", "Paying…", "Payment received."));
element("cancel").addEventListener("click", () => {
  element("cancel-sure").hidden = false;
  element("cancel-confirm").focus();
});
element("cancel-confirm").addEventListener("click", () => act("/order/cancel", "Cancelling…", "The order is cancelled."));
document.addEventListener("visibilitychange", () => document.hidden ? clearTimeout(timer) : order && POLL_MS[order.state] && follow());

await (orderId ? openOne() : openList()).catch(explain);
if (!signedIn() && element("status").className !== "bad") get("/user/get").then(remember, () => {});
