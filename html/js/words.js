// What each refusal means for the buyer. A code that is not here speaks with the server's own message.
const WORDS = {
  0: "We could not reach the shop. Check your connection and try again.",
  10002: "Something went wrong on our side. Please try again in a moment.",
  10003: "We could not find that. It may have been removed.",
  20001: "There is no account with this number.",
  20002: "This phone number and password do not match.",
  20003: "Please sign in first.",
  20004: "Your account is not allowed to do this.",
  20005: "This code is wrong or has expired. Ask for a new one.",
  20006: "This number already has an account. Sign in instead.",
  30001: "Sold out. Units that are not paid for in time come back, so look again later.",
  30002: "That was a lot of requests. Wait a moment, then try again.",
  30003: "The sale is not open.",
  30004: "The check was not passed. Press Buy to try again.",
  30005: "Your place in this sale has run out. Press Buy to ask for a new one.",
  30006: "You have reached the limit per person for this sale.",
  30007: "All places are taken for now. Some may come back: try again in a little while.",
  30008: "The shop is very busy. Nothing is lost: try again in a few seconds.",
  30009: "The sale is paused for a moment. It will go on here.",
  30010: "The order has moved on in the meantime.",
  30011: "This purchase was started with other details. Press Buy to start again.",
};

export const words = (code, message) => WORDS[code] ?? (message || WORDS[10002]);
