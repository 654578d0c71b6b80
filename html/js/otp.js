// The code that proves a phone number is yours. In a demo shop it comes back in the answer and is shown.
import { post } from "./api.js";
import { say } from "./status.js";

const DRAFT = "floodgate.registration"; // number and demo code, from getotp.html to register.html

export async function sendCode(tel) {
  const otp = (await post("/user/getotp", { tel }))?.otp;
  sessionStorage.setItem(DRAFT, JSON.stringify({ tel, otp }));
  const demo = document.getElementById("demo-code");
  demo.hidden = !otp;
  demo.querySelector(".code").textContent = otp ?? "";
  say(otp ? "Demo delivery: this shop shows your code instead of sending it." : "We sent you a code. It may take a minute.");
  return otp;
}

export const draft = () => JSON.parse(sessionStorage.getItem(DRAFT)) ?? {};

export const forgetDraft = () => sessionStorage.removeItem(DRAFT);
