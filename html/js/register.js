// A new account: number, code, a little about you. Then straight into the shop, signed in.
import { post, Refusal } from "./api.js";
import { once, onSubmit } from "./form.js";
import { draft, forgetDraft, sendCode } from "./otp.js";
import { nextPage, remember } from "./session.js";

const element = (id) => document.getElementById(id);
for (const link of document.querySelectorAll("a[data-next]")) link.search = location.search;

element("tel").value = draft().tel ?? "";
element("otp-code").value = draft().otp ?? "";

element("otp-send").addEventListener("click", ({ currentTarget: button }) => {
  if (!element("tel").reportValidity()) return;
  once(button, async () => {
    element("otp-code").value = (await sendCode(element("tel").value)) ?? "";
    element("otp-code").focus();
  });
});

onSubmit(document.querySelector("form"), async ({ tel, otpCode, name, password, gender, age }) => {
  await post("/user/register", { tel, otpCode, name, password, gender: Number(gender), age: Number(age) });
  forgetDraft();
  try {
    remember((await post("/user/login", { tel, password })).user);
  } catch {
    throw new Refusal(-1, "Your account is ready. Please sign in.");
  }
  location.assign(nextPage());
});
