// Who is signed in, as far as this page shows it. The session itself is a cookie that no script can read;
// only the name is remembered here, so that a crowd looking at a page asks no order server for it.
import { post } from "./api.js";
import { complain } from "./status.js";

const NAME = "floodgate.name";

export const signedIn = () => localStorage.getItem(NAME) !== null;

export function remember(user) {
  localStorage.setItem(NAME, user.name);
  showNav();
}

export function forget() {
  localStorage.removeItem(NAME);
  showNav();
}

export const signInLink = () => ({ href: "/resources/login.html?next=" + encodeURIComponent(location.pathname + location.search), text: "Sign in" });

// Where to go after signing in: only ever a page of this shop.
export function nextPage() {
  const url = new URL(new URLSearchParams(location.search).get("next") || "/", location.origin);
  // The whole address: a path of its own could begin with `//` and lead elsewhere.
  return url.origin === location.origin ? url.href : "/";
}

const element = (id) => document.getElementById(id);

function showNav() {
  const name = localStorage.getItem(NAME);
  element("who").textContent = name ?? "";
  element("who").hidden = element("logout").hidden = name === null;
  element("sign-in").hidden = name !== null;
}

element("logout").addEventListener("click", async () => {
  try {
    await post("/user/logout");
  } catch (refusal) {
    if (refusal.code !== 20003) return complain(refusal);
  }
  forget();
  sessionStorage.clear(); // a purchase under way was this buyer's
  location.assign("/");
});
element("sign-in").href = location.pathname.endsWith("/login.html") ? location.href : signInLink().href;
showNav();
