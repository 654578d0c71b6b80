// The server's clock, as seen from here: each sample is off by at most half its round trip; the best one counts.
let offset = 0;
let bestTrip = Infinity;
let takenAt = 0;

export const now = () => Date.now() + offset;

export async function sample(fetchState) {
  const sent = Date.now();
  const state = await fetchState();
  const trip = Date.now() - sent;
  if (trip <= bestTrip || sent - takenAt > 60_000) {
    offset = state.serverTime - (sent + trip / 2);
    bestTrip = trip;
    takenAt = sent;
  }
  return state;
}
