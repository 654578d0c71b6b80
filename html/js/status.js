// The one line that tells the buyer what is going on. It is a live region: screen readers hear it.
const line = document.getElementById("status");

export function say(text, link) {
  line.className = "";
  show(text, link);
}

export function complain(error, link) {
  line.className = "bad";
  show(error.message, link);
}

function show(text, link) {
  line.textContent = text;
  if (!link) return;
  const anchor = document.createElement("a");
  anchor.href = link.href;
  anchor.textContent = link.text;
  line.append(" ", anchor);
}
