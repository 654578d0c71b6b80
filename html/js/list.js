// The shop window: every item, with what is on sale first.
import { get } from "./api.js";
import { moment, showPicture, showPrice } from "./format.js";
import "./session.js";
import { complain, say } from "./status.js";

const BADGES = [["", ""], ["soon", "Coming up"], ["on", "On sale now"], ["", "Sold out"], ["", "Sale ended"]];
const RANK = [3, 1, 0, 2, 4]; // live, coming up, sold out, no sale, ended

function tile(item) {
  const tile = document.getElementById("tile").content.cloneNode(true);
  const part = (selector) => tile.querySelector(selector);
  const [look, text] = BADGES[item.promoStatus] ?? BADGES[0];
  part("a").textContent = item.title;
  part("a").href = "/resources/item.html?id=" + encodeURIComponent(item.id);
  part(".badge").textContent = text;
  part(".badge").className = "badge " + look;
  part(".badge").hidden = !text;
  part(".soft").textContent = item.promoStatus === 1 ? "Starts " + moment(item.startDate) : "";
  showPrice(part(".price"), item, item.promoStatus > 0 && item.promoStatus < 4);
  showPicture(part(".picture"), item);
  return tile;
}

get("/item/list").then((items) => {
  items.sort((a, b) => RANK[a.promoStatus] - RANK[b.promoStatus]);
  document.getElementById("items").replaceChildren(...items.map(tile));
  if (!items.length) say("There is nothing in the shop yet. Please look in again.");
}, complain);
