// Forms that talk to the shop: one submit at a time, with its outcome in words.
import { complain, say } from "./status.js";

export function onSubmit(form, send) {
  const button = form.querySelector(".main");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    if (button.disabled) return;
    await once(button, () => send(Object.fromEntries(new FormData(form))));
  });
}

export async function once(button, act) {
  button.disabled = true;
  say("One moment…");
  try {
    await act();
  } catch (refusal) {
    complain(refusal);
  }
  button.disabled = false;
}
