// Counts down to a moment on the server's clock, once a second, on the second.
import { now } from "./clock.js";

const UNITS = [["days", 86400], ["hours", 3600], ["min", 60], ["sec", 1]];

export class Countdown {
  constructor(element) {
    this.element = element;
  }

  // Calls `onZero` once, when the moment comes.
  to(at, onZero = () => {}) {
    this.stop();
    const tick = () => {
      const left = at - now();
      this.show(Math.max(0, Math.ceil(left / 1000)));
      if (left <= 0) onZero();
      else this.timer = setTimeout(tick, left % 1000 || 1000);
    };
    this.element.hidden = false;
    tick();
  }

  stop() {
    clearTimeout(this.timer);
    this.element.hidden = true;
  }

  show(seconds) {
    const parts = UNITS.filter(([name, size]) => name !== "days" || seconds >= size).map(([name, size]) => {
      const part = document.createElement("span");
      const number = document.createElement("b");
      number.textContent = String(Math.floor(seconds / size)).padStart(2, "0");
      seconds %= size;
      part.append(number, " " + name + " ");
      return part;
    });
    this.element.replaceChildren(...parts);
  }
}
