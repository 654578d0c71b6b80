// Follows one promo: asks for its state often enough to be right, seldom enough to be polite.
import { get } from "./api.js";
import { now, sample } from "./clock.js";

export class Promo {
  constructor(id, onChange) {
    this.id = id;
    this.onChange = onChange;
    document.addEventListener("visibilitychange", () => this.refresh());
  }

  // What a buyer needs to know: upcoming, live, soldOut, paused, ended or closed.
  get phase() {
    const { phase, soldOut, startsAt, endsAt } = this.state;
    const byClock = now() < startsAt ? "upcoming" : now() < endsAt ? "live" : "ended";
    const told = phase === "upcoming" || phase === "live" ? byClock : phase;
    return told === "live" && soldOut ? "soldOut" : told;
  }

  async refresh() {
    clearTimeout(this.timer);
    if (document.hidden) return;
    let wait;
    try {
      this.state = await sample(() => get("/promo/state", { id: this.id }));
      this.failed = null;
      wait = this.pause();
    } catch (refusal) {
      this.failed = refusal;
      wait = Math.max(refusal.retryAfterMs, 4000);
    }
    this.onChange();
    clearTimeout(this.timer);
    if (wait) this.timer = setTimeout(() => this.refresh(), wait * (1 + Math.random() / 2));
  }

  // Milliseconds to the next question; none once it is over.
  pause() {
    if (this.phase === "live") return 3000;
    if (this.phase === "paused") return 4000;
    if (this.phase === "soldOut") return 10_000;
    if (this.phase !== "upcoming") return 0;
    const left = this.state.startsAt - now();
    return left > 40_000 ? Math.min(left * 0.5, 60_000) : left > 8000 ? 5000 : left + 200;
  }
}
