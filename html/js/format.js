// Money, moments, pictures: how values look. The shop's currency is chosen here.
const CURRENCY = "USD";

export const money = (decimal) => new Intl.NumberFormat("en", { style: "currency", currency: CURRENCY }).format(decimal);

export const moment = (when) => new Date(when).toLocaleString(undefined, { dateStyle: "medium", timeStyle: "short" });

// The promo's price with the usual one struck through beside it, or the usual price alone.
export function showPrice(element, item, onPromo) {
  element.textContent = money(onPromo ? item.promoPrice : item.price);
  if (!onPromo || item.promoPrice === item.price) return;
  const usual = document.createElement("s");
  usual.textContent = money(item.price);
  usual.setAttribute("aria-label", "usual price " + usual.textContent);
  element.append(usual);
}

// Without a picture, or when it does not load, the item's initial stands in.
export function showPicture(figure, item) {
  const standIn = () => {
    figure.replaceChildren();
    figure.dataset.initial = (item?.title ?? "?").slice(0, 1);
  };
  if (!item?.imgUrl) return standIn();
  const image = new Image();
  image.alt = "";
  image.onerror = standIn;
  image.src = item.imgUrl;
  figure.replaceChildren(image);
}
