// ALTCHA proof of work, off the page's thread: counts up until PBKDF2 gives a key with the asked prefix.
const BATCH = 64; // in flight together, so that every core works

onmessage = async ({ data: task }) => {
  const hash = /^PBKDF2\/(SHA-\d+)$/i.exec(task.algorithm)[1];
  const nonce = fromHex(task.nonce);
  const kdf = { name: "PBKDF2", hash, salt: fromHex(task.salt), iterations: task.cost };
  const prefix = task.keyPrefix.toLowerCase();

  const derive = async (counter) => {
    const password = new Uint8Array(nonce.length + 4);
    password.set(nonce);
    new DataView(password.buffer).setUint32(nonce.length, counter);
    const base = await crypto.subtle.importKey("raw", password, "PBKDF2", false, ["deriveBits"]);
    return toHex(await crypto.subtle.deriveBits(kdf, base, task.keyLength * 8));
  };

  for (let tried = 0; ; tried += BATCH) {
    const keys = await Promise.all(Array.from({ length: BATCH }, (_, i) => derive(tried + i)));
    const key = keys.find((k) => k.startsWith(prefix));
    postMessage({ key, tried });
    if (key) return;
  }
};

// A rejection in an async handler is no error event by itself.
onunhandledrejection = ({ reason }) => setTimeout(() => { throw reason; });

const fromHex = (hex) => Uint8Array.from(hex.match(/../g), (pair) => parseInt(pair, 16));
const toHex = (buffer) => Array.from(new Uint8Array(buffer), (byte) => byte.toString(16).padStart(2, "0")).join("");
