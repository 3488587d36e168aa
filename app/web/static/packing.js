/* The packing bench: reads a scanner that types, judges each scan at once by what it knows, and hands every
   scan to the server in order. Offline, scans wait in this browser; their ids make a second sending harmless.
   The judgement is models/rules/parcel.py once more, held to it by tests/web/test_packing_browser.py. */

const ALPHABET = "23456789CDFHJKMNPRTVWXY";
const S10_WEIGHTS = [8, 6, 4, 2, 3, 5, 9, 7];
const AT_ONCE = 100;
const AGAIN_MS = 3000;
const REFRESH_MS = 60000;

function isKit(code) {
  if (code.length !== 10 || [...code].some((each) => !ALPHABET.includes(each))) return false;
  let check = 0;
  for (const each of code.slice(0, -1)) check = ((check + ALPHABET.indexOf(each)) * 2) % 23;
  return ALPHABET[(((1 - check) % 23) + 23) % 23] === code[9];
}

function isTracking(code) {
  if (!/^[A-Z]{2}[0-9]{9}[A-Z]{2}$/.test(code)) return false;
  const sum = S10_WEIGHTS.reduce((total, weight, at) => total + weight * Number(code[2 + at]), 0);
  const rest = 11 - (sum % 11);
  return Number(code[10]) === (rest === 10 ? 0 : rest === 11 ? 5 : rest);
}

/** What a scanner read: {label, code}, or null where nothing of ours has such a code. */
export function readLabel(text) {
  const code = text.replace(/[ \-\u2010-\u2013\t]/g, "").toUpperCase();
  if (isKit(code)) return { label: "form", code };
  if (code.length === 11 && isKit(code.slice(0, 10)) && /[1-9]$/.test(code)) return { label: "tube", code };
  const plain = text.replace(/[ \t-]/g, "").toUpperCase();
  if (isTracking(plain)) return { label: "return", code: plain };
  if (plain.length === 12 && [...plain].every((each) => ALPHABET.includes(each))) return { label: "outer", code: plain };
  return null;
}

const scannedReturn = (table) => table.scanned.find(isTracking) || "";
const missingTubes = (table) => table.tubes.filter((tube) => !table.scanned.includes(tube)).length;

/** judge_scan: whether this piece belongs to the kit on the table. */
export function judge(table, scan) {
  if (scan.label === "form" && scan.code === table.kit) return table.blocked ? "ok" : "again";
  if (table.blocked) return "blocked";
  if (table.scanned.includes(scan.code)) return "again";
  if (scan.label === "tube" && table.tubes.includes(scan.code)) return "ok";
  if (scan.label === "return" && !scannedReturn(table) && ["", scan.code].includes(table.number)) return "ok";
  if (scan.label === "outer" && scan.code === table.outer)
    return missingTubes(table) || !scannedReturn(table) ? "missing" : "dispatch";
  return "wrong";
}

const show = (code) => [code.slice(0, 3), code.slice(3, 6), code.slice(6, 10), code.slice(10)].filter(Boolean).join("-");

function still(table) {
  const tubes = missingTubes(table);
  const wanted = [tubes ? `${tubes} tube${tubes > 1 ? "s" : ""}` : "", scannedReturn(table) ? "" : "the return label"];
  const named = wanted.filter(Boolean).join(" and ");
  return named ? `scan ${named}` : "scan the outer label to dispatch it";
}

function named(scan) {
  return {
    tube: `Tube ${show(scan.code)}`,
    return: `Return label ${scan.code}`,
    outer: `Outer label ${scan.code}`,
    form: `Form ${show(scan.code)}`,
  }[scan.label];
}

const answer = (fine, sentence, more) => ({ fine, sentence, known: true, dispatched: false, ...more });
const unknown = { fine: false, known: false, dispatched: false, sentence: "" };

/** Takes one scan at a bench: {table, waiting, used, gone}. Changes the bench; what it can't know is not `known`. */
export function take(bench, text) {
  const scan = readLabel(text);
  if (!scan) return answer(false, "This is no code of ours, or it was misread: scan it again.");
  if (scan.label === "form") {
    if (bench.gone.includes(scan.code)) return answer(true, `Kit ${show(scan.code)} was dispatched already.`);
    const kit = bench.waiting[scan.code];
    if (!kit) {
      bench.table = null;
      bench.unsure = true;
      return unknown;
    }
    const open = bench.table;
    if (open && open.kit === scan.code && judge(open, scan) === "again")
      return answer(true, `Kit ${show(scan.code)} is open: ${still(open)}.`);
    bench.unsure = false;
    bench.table = { ...kit, scanned: [], blocked: false };
    const left = open && open.kit !== scan.code ? ` Kit ${show(open.kit)} was left unfinished: start it again from its form.` : "";
    return answer(true, `Kit ${show(scan.code)}: ${still(bench.table)}.${left}`);
  }
  if (bench.unsure) return unknown;
  if (!bench.table) {
    if (scan.label === "outer" && bench.gone.includes(scan.code)) return answer(true, "This parcel was dispatched already.");
    return answer(false, "No kit is open: scan the kit's request form first.");
  }
  const table = bench.table;
  const shown = show(table.kit);
  let verdict = judge(table, scan);
  let piece = scan;
  const number = scan.label === "return" ? scan.code : scannedReturn(table);
  if (["ok", "dispatch"].includes(verdict) && bench.used.includes(number)) {
    verdict = "wrong";
    piece = { label: "return", code: number };
  }
  switch (verdict) {
    case "ok":
      table.scanned.push(scan.code);
      return answer(true, `${named(scan)} belongs to kit ${shown}: ${still(table)}.`);
    case "again":
      return answer(true, `${named(scan)} was scanned already: ${still(table)}.`);
    case "blocked":
      return answer(false, `Kit ${shown} is blocked by a wrong piece: scan its request form to start it again.`);
    case "missing":
      return answer(false, `Not yet: for kit ${shown}, ${still(table)}.`);
    case "dispatch":
      bench.used.push(number);
      bench.gone.push(table.kit, table.outer);
      delete bench.waiting[table.kit];
      bench.table = null;
      return answer(true, `Kit ${shown} is whole and dispatched.`, { dispatched: true });
    default:
      table.blocked = true;
      return answer(false, `${named(piece)} does NOT belong to kit ${shown}: stop, take it out, scan the form of ${shown} again.`);
  }
}

// ── The page ───────────────────────────────────────────────────────────────────────────────

const NOTES = { fine: [[880, 0.09]], done: [[660, 0.1], [990, 0.18]], stop: [[180, 0.25], [180, 0.35]] };
let speaker = null;

function sound(tone) {
  try {
    speaker = speaker || new AudioContext();
    let at = speaker.currentTime;
    for (const [hertz, seconds] of NOTES[tone]) {
      const voice = speaker.createOscillator();
      const volume = speaker.createGain();
      voice.type = tone === "stop" ? "square" : "sine";
      voice.frequency.value = hertz;
      volume.gain.value = 0.2;
      voice.connect(volume).connect(speaker.destination);
      voice.start(at);
      voice.stop(at + seconds);
      at += seconds + 0.06;
    }
  } catch {
    // A machine without a loudspeaker still has colours and words.
  }
}

function start(page) {
  const form = document.getElementById("scan");
  const input = form.elements.namedItem("code");
  const csrf = form.elements.namedItem("csrf").value;
  const at = (id) => document.getElementById(id);
  const place = `kitpost|${page.dataset.packer}|${page.dataset.bench}`;
  const kept = (name, otherwise) => JSON.parse(localStorage.getItem(`${place}|${name}`) || otherwise);
  const keep = (name, value) => localStorage.setItem(`${place}|${name}`, JSON.stringify(value));
  const bench = { table: null, waiting: {}, used: [], gone: [], unsure: true };
  const queue = kept("queue", "[]");
  // Before a kit stood with them, alarms were kept as sentences alone.
  const alarms = kept("alarms", "[]").map((each) => (typeof each === "string" ? { kit: "", sentence: each } : each));
  let sending = false;
  let online = navigator.onLine;
  let last = "";
  let timer = 0;

  function say(tone, sentence) {
    const panel = at("verdict");
    panel.className = `verdict ${tone}`;
    panel.querySelector(".mark").textContent = { fine: "OK", done: "Dispatched", stop: "STOP", wait: "Asking" }[tone];
    panel.querySelector(".words").textContent = sentence;
  }

  function announce(told, silent) {
    const tone = !told.fine ? "stop" : told.dispatched ? "done" : "fine";
    say(tone, told.sentence);
    if (!silent) sound(tone);
    const line = document.createElement("li");
    line.textContent = told.sentence;
    line.className = tone;
    if (told.dispatched) at("count").textContent = Number(at("count").textContent) + 1;
    at("latest").prepend(line);
    while (at("latest").children.length > 8) at("latest").lastElementChild.remove();
  }

  function draw() {
    const many = queue.length;
    const words = many === 1 ? "1 scan waits" : `${many} scans wait`;
    const out = !at("signed-out").hidden;
    at("line").textContent = out
      ? `Signed out. ${words} in this browser: sign in again.`
      : online
        ? many ? `On line. ${words} to be kept.` : "On line. Every scan is kept."
        : `Off line. ${words} in this browser: pack on, and don't close this page.`;
    at("line").className = online && !out ? "line" : "line off";
    const table = bench.table;
    at("open").hidden = !table;
    if (table) {
      at("open-kit").textContent = show(table.kit);
      at("aside-kit").value = table.kit;
      at("leaflet").textContent = table.leaflet;
      const pieces = [
        ...table.tubes.map((tube, number) => [`Tube ${number + 1}, ${table.specimens[number]}`, table.scanned.includes(tube)]),
        ["Return label", Boolean(scannedReturn(table))],
        ["Outer label", false],
      ];
      at("pieces").replaceChildren(
        ...pieces.map(([name, in_]) => {
          const line = document.createElement("li");
          line.className = in_ ? "in" : "";
          line.textContent = `${name}: ${in_ ? "in" : "still to scan"}`;
          return line;
        }),
      );
    }
    at("alarms").hidden = !alarms.length;
    at("alarm-list").replaceChildren(
      ...alarms.map(({ sentence }, number) => {
        const line = document.createElement("li");
        const done = document.createElement("button");
        line.textContent = `${sentence} `;
        done.type = "button";
        done.className = "plain";
        done.textContent = "Done";
        done.setAttribute("aria-label", `Done: ${sentence}`);
        done.addEventListener("click", () => {
          alarms.splice(number, 1);
          keep("alarms", alarms);
          draw();
          input.focus();
        });
        line.append(done);
        return line;
      }),
    );
  }

  function hear(told) {
    const entry = queue.find((each) => each.ref === told.ref);
    if (!entry) return;
    queue.splice(queue.indexOf(entry), 1);
    if (!entry.known) {
      if (entry.ref === last) announce(told);
    } else if (entry.fine && !told.fine) {
      // The packer was told to go on, and must be told that something changed meanwhile: once a kit, by what came first.
      if (entry.kit && alarms.some((each) => each.kit === entry.kit)) return;
      const kit = entry.kit || "";
      const sentence = told.sentence.includes(show(kit)) ? told.sentence : `Kit ${show(kit)}: ${told.sentence}`;
      alarms.push({ kit, sentence });
      keep("alarms", alarms);
      announce({ ...told, sentence });
    }
  }

  async function post(batch) {
    const now = Date.now();
    const scans = batch.map((each) => ({ ref: each.ref, code: each.code, ago: Math.max(0, (now - each.at) / 1000) }));
    const body = new URLSearchParams({ csrf, bench: page.dataset.bench, scans: JSON.stringify(scans) });
    return fetch("/packing/scans", { method: "POST", body, redirect: "manual" });
  }

  async function flush() {
    if (sending || !queue.length) return;
    sending = true;
    try {
      do {
        while (queue.length) {
          const reply = await post(queue.slice(0, AT_ONCE));
          online = true;
          if (!reply.ok) {
            const gone = reply.type === "opaqueredirect";
            at("signed-out").hidden = !gone;
            if (!gone) say("stop", "The server refused these scans. They are kept here: load this page again.");
            return;
          }
          at("signed-out").hidden = true;
          for (const told of await reply.json()) hear(told);
          keep("queue", queue);
          draw();
        }
        if (bench.unsure) await refresh();
      } while (queue.length); // read while we asked what waits
    } catch {
      online = false;
      const entry = queue.find((each) => each.ref === last);
      if (entry && !entry.known && !entry.told) {
        entry.told = true;
        announce({ fine: false, sentence: "This bench is off line and does not know that kit: set it aside until the line is back." });
      }
      clearTimeout(timer);
      timer = setTimeout(flush, AGAIN_MS);
    } finally {
      sending = false;
      draw();
    }
  }

  /** What waits at the benches, and what the server says is open here. Only when nothing of ours is under way. */
  async function refresh() {
    if (queue.length) return;
    try {
      const reply = await fetch(`/packing/waiting?bench=${encodeURIComponent(page.dataset.bench)}`, { redirect: "manual" });
      if (!reply.ok) return;
      const told = await reply.json();
      online = true;
      if (queue.length) return;
      bench.waiting = Object.fromEntries(told.kits.map((kit) => [kit.kit, kit]));
      const kit = bench.waiting[told.open];
      bench.table = kit ? { ...kit, scanned: told.scanned, blocked: told.blocked } : null;
      bench.unsure = Boolean(told.open) && !kit;
    } catch {
      online = false;
    }
    draw();
  }

  function scanned(text) {
    const before = bench.table;
    const told = take(bench, text);
    const kit = (bench.table ?? before)?.kit ?? "";
    const entry = { ref: crypto.randomUUID(), code: text, kit, at: Date.now(), fine: told.fine, known: told.known };
    last = entry.ref;
    queue.push(entry);
    keep("queue", queue);
    if (told.known) announce(told);
    else say("wait", "Asking the server.");
    draw();
    flush();
  }

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = input.value.trim();
    input.value = "";
    if (text) scanned(text.slice(0, 64));
    input.focus();
  });
  document.addEventListener("keydown", (event) => {
    const on = document.activeElement;
    const plain = event.key.length === 1 && !event.ctrlKey && !event.metaKey && !event.altKey;
    if (plain && event.key !== " " && on !== input && !["INPUT", "SELECT", "TEXTAREA"].includes(on?.tagName)) input.focus();
  });
  addEventListener("online", flush);
  addEventListener("offline", () => { online = false; draw(); });
  addEventListener("beforeunload", (event) => { if (queue.length && at("signed-out").hidden) event.preventDefault(); });
  setInterval(() => { if (!queue.length) refresh(); }, REFRESH_MS);
  draw();
  (async () => {
    await flush();
    await refresh();
    page.dataset.ready = "yes";
  })();
}

const page = document.getElementById("bench");
if (page) start(page);
