// The check before buying: the browser works for it by itself, or the buyer reads a picture.
import { insist, post, Refusal } from "./api.js";

const element = (id) => document.getElementById(id);
const USUAL_COUNT = 3000; // for the progress bar only
const SWITCH = Symbol("a new picture, please");
let prefersImage = false;

// Each challenge is good for one attempt, so each call fetches its own.
export async function solve(promoId, offered, onWait) {
  const panel = element("challenge");
  try {
    for (;;) {
      const kind = choose(offered);
      const issued = await insist(() => post("/order/generateverifycode", { promoId, kind }), onWait);
      panel.hidden = issued.kind === "none";
      const answer = await answerTo(issued, offered);
      if (answer !== SWITCH) return { challenge: issued.challenge, answer, expiresAt: issued.expiresAt };
      prefersImage = true;
    }
  } finally {
    panel.hidden = true;
  }
}

function choose(offered) {
  if (offered.includes("none")) return "none";
  const canWork = offered.includes("altcha") && !!globalThis.crypto?.subtle;
  if (offered.includes("image") && (prefersImage || !canWork)) return "image";
  if (canWork) return "altcha";
  throw new Refusal(-1, "This browser cannot do the check over an insecure connection. Open the shop by https.");
}

async function answerTo(issued, offered) {
  element("challenge-work").hidden = issued.kind !== "altcha";
  element("challenge-form").hidden = issued.kind !== "image";
  element("use-image").hidden = !offered.includes("image");
  if (issued.kind === "none") return "";
  return issued.kind === "image" ? read(issued.image) : work(issued.altcha.parameters, offered);
}

async function work(task, offered) {
  const worker = new Worker("/resources/js/altcha-worker.js");
  const bar = element("challenge-progress");
  bar.value = 0;
  try {
    return await new Promise((done, failed) => {
      element("use-image").onclick = () => done(SWITCH);
      worker.onerror = () => offered.includes("image") ? done(SWITCH) : failed(new Refusal(-1, "Your browser could not do the check."));
      worker.onmessage = ({ data }) => {
        bar.value = Math.min(0.95, data.tried / USUAL_COUNT);
        if (data.key) done(data.key);
      };
      worker.postMessage(task);
    });
  } finally {
    worker.terminate();
  }
}

function read(image) {
  const field = element("challenge-answer");
  element("challenge-image").src = image;
  field.value = "";
  field.focus();
  return new Promise((done) => {
    element("new-image").onclick = () => done(SWITCH);
    element("challenge-form").onsubmit = (event) => {
      event.preventDefault();
      done(field.value.trim());
    };
  });
}
