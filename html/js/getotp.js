// First step of an account, on a page of its own: prove the number, then go on to register.
import { onSubmit } from "./form.js";
import { sendCode } from "./otp.js";
import "./session.js";

const go = document.getElementById("continue");
go.search = location.search;

onSubmit(document.querySelector("form"), async ({ tel }) => {
  await sendCode(tel);
  go.hidden = false;
  go.focus();
});
