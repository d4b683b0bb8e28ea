// The rater's page: consent, instructions, trials, thanks. Every answer is stored on the server before the next trial begins.
"use strict";

const page = document.getElementById("study");
const status_ = document.getElementById("status");
const progress = document.getElementById("progress");
const remembered = `kinema-study-${page.dataset.study}`;
const KEYS = { arrowleft: "left", f: "left", arrowright: "right", j: "right" };
const ATTEMPT_MILLISECONDS = 8000;
const CLIP_MILLISECONDS = 120000;  // a large clip over a slow line

let token = "";
let total = 0;
let answered = 0;

// Requests ----------------------------------------------------------------------------------------------------------

async function ask(method, address, body, patience = ATTEMPT_MILLISECONDS) {
  const headers = { Accept: "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  if (body) headers["Content-Type"] = "application/json";
  const signal = AbortSignal.timeout(patience);
  return fetch(address, { method, headers, signal, body: body ? JSON.stringify(body) : undefined });
}

// Asks until the server has answered: a lost connection must not lose an answer. Returns the response.
async function insist(method, address, body, patience) {
  for (let pause = 500; ; pause = Math.min(pause * 2, 8000)) {
    try {
      const response = await ask(method, address, body, patience);
      if (response.status < 500 && response.status !== 429) {
        status_.textContent = "";
        return response;
      }
    } catch { /* no connection: the next attempt will tell */ }
    status_.textContent = "No connection; trying again. Please leave this page open.";
    await new Promise((resolve) => setTimeout(resolve, pause));
  }
}

// Clips are loaded whole before they are shown, and those of the next trial while this one is on the screen.
const loading = new Map();
function load(address) {
  if (!loading.has(address)) {
    const loaded = insist("GET", address, undefined, CLIP_MILLISECONDS).then(async (response) => {
      if (!response.ok) throw new Error(`${address}: ${response.status}`);
      return URL.createObjectURL(await response.blob());
    });
    loaded.catch(() => loading.delete(address));  // so that the trial itself tries once more
    loading.set(address, loaded);
  }
  return loading.get(address);
}

// Parts of the page ---------------------------------------------------------------------------------------------------

function show(display, name) {
  display.replaceChildren(document.getElementById(name).content.cloneNode(true));
}

function showProgress() {
  progress.hidden = false;
  const bar = progress.querySelector("progress");
  bar.max = total;
  bar.value = answered;
  progress.querySelector("span").textContent = `${answered} of ${total}`;
}

// Plays two videos from their beginnings, again and again; both wait for the slower one at every turn.
async function loop(videos, signal) {
  while (!signal.aborted) {
    const over = videos.map((video) => new Promise((resolve) => {
      video.addEventListener("ended", resolve, { once: true, signal });
    }));
    await Promise.all(videos.map((video) => video.play()));
    await Promise.all(over);
    await Promise.all(videos.map((video) => new Promise((resolve) => {
      video.addEventListener("seeked", resolve, { once: true, signal });
      video.currentTime = 0;
    })));
  }
}

function ready(video, source) {
  return new Promise((resolve, reject) => {
    video.addEventListener("canplaythrough", resolve, { once: true });
    video.addEventListener("error", () => reject(new Error("this browser cannot play the videos (H.264 in MP4)")), { once: true });
    video.src = source;
  });
}

// Plugins of jsPsych --------------------------------------------------------------------------------------------------

const { ParameterType, initJsPsych } = jsPsychModule;

class TextPlugin {
  static info = { name: "text", version: "1.0.0", parameters: { template: { type: ParameterType.STRING }, act: { type: ParameterType.FUNCTION, default: null } }, data: {} };

  constructor(jsPsych) { this.jsPsych = jsPsych; }

  trial(display, { template, act }) {
    show(display, template);
    const button = display.querySelector(".action");
    button.focus({ preventScroll: true });
    button.addEventListener("click", async () => {
      button.disabled = true;
      if (act) await act();
      this.jsPsych.finishTrial({});
    }, { once: true });
  }
}

class PairPlugin {
  static info = {
    name: "pair", version: "1.0.0", data: {},
    parameters: { shown: { type: ParameterType.OBJECT }, next: { type: ParameterType.OBJECT, default: null } },
  };

  constructor(jsPsych) { this.jsPsych = jsPsych; }

  async trial(display, { shown, next }) {
    show(display, "pair");
    showProgress();
    display.querySelector(".practice").hidden = !shown.practice;
    const pair = display.querySelector(".pair");
    const videos = [...display.querySelectorAll("video")];
    for (const video of videos) {
      video.style.aspectRatio = page.dataset.aspect;
      video.muted = true;  // the attribute of a cloned element is not enough for every browser to let it play by itself
    }
    pair.classList.add("loading");
    const stopped = new AbortController();
    const sources = await Promise.all([load(shown.left), load(shown.right)]);
    await Promise.all(videos.map((video, side) => ready(video, sources[side])));
    const choice = this.choose(pair, stopped.signal);
    await this.play(display, videos, stopped.signal);
    pair.classList.remove("loading");
    const start = performance.now();
    if (next) { load(next.left).catch(() => {}); load(next.right).catch(() => {}); }
    const side = await choice(start);
    await this.store(pair, shown.id, side.side, side.milliseconds);
    stopped.abort();
    this.jsPsych.finishTrial({});
  }

  // Starts the videos; a browser that lets nothing play by itself gets a button to touch.
  async play(display, videos, signal) {
    const begin = () => new Promise((resolve, reject) => {
      videos[0].addEventListener("playing", resolve, { once: true });
      loop(videos, signal).catch(reject);
    });
    try {
      await begin();
    } catch (error) {
      if (error.name !== "NotAllowedError") throw error;
      const button = display.querySelector(".play");
      button.hidden = false;
      await new Promise((resolve) => button.addEventListener("click", resolve, { once: true }));
      button.hidden = true;
      await begin();
    }
  }

  // Returns a function that waits for the answer: a key, a click or a touch.
  choose(pair, signal) {
    return (start) => new Promise((resolve) => {
      const answer = (side) => resolve({ side, milliseconds: Math.round(performance.now() - start) });
      for (const button of pair.querySelectorAll(".clip")) {
        button.addEventListener("click", () => answer(button.dataset.side), { once: true, signal });
      }
      document.addEventListener("keydown", (event) => {
        const side = KEYS[event.key.toLowerCase()];
        if (!side || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
        event.preventDefault();
        answer(side);
      }, { signal });
    });
  }

  async store(pair, trial, side, milliseconds) {
    for (const button of pair.querySelectorAll(".clip")) {
      button.disabled = true;
      button.classList.toggle("chosen", button.dataset.side === side);
    }
    const response = await insist("POST", "api/votes", { trial, side, milliseconds });
    // 409: stored already, by an attempt whose reply was lost or in another window.
    if (!response.ok && response.status !== 409) throw new Error(`the answer was refused (${response.status})`);
    answered += 1;
    showProgress();
  }
}

// The session ---------------------------------------------------------------------------------------------------------

function keep(given) {
  token = given;
  try { localStorage.setItem(remembered, token); } catch { /* private windows: the address alone has to do */ }
  history.replaceState(null, "", `#${token}`);
}

function recall() {
  if (location.hash.length > 1) return decodeURIComponent(location.hash.slice(1));
  try { return localStorage.getItem(remembered) ?? ""; } catch { return ""; }
}

async function join() {
  const response = await insist("POST", "api/raters");
  if (!response.ok) throw new Error("this study is open to invited people only");
  keep((await response.json()).token);
}

async function session() {
  const response = await insist("GET", "api/session");
  if (response.status === 401) return null;
  if (!response.ok) throw new Error(`the server says ${response.status}`);
  return response.json();
}

async function run() {
  token = recall();
  let found = token ? await session() : null;
  if (token && !found && location.hash.length > 1) return show(page, "unknown");
  if (!found) token = "";
  if (!found && page.dataset.closed === "yes") return show(page, "closed");
  if (found) keep(token);
  if (!found || !found.consented) {
    const agree = async () => { if (token) await insist("POST", "api/consent"); else await join(); };
    await jsPsych().run([{ type: TextPlugin, template: "consent", act: agree }]);
    found = await session();
  }
  total = found.total;
  answered = found.answered;
  const trials = found.trials;
  if (trials.length) {
    const pairs = trials.map((shown, number) => ({ type: PairPlugin, shown, next: trials[number + 1] ?? null }));
    await jsPsych().run([{ type: TextPlugin, template: "instructions" }, ...pairs]);
  }
  show(page, "thanks");
  showProgress();
}

function jsPsych() {
  return initJsPsych({ display_element: page, on_finish: () => {} });
}

run().catch((error) => { status_.textContent = `Something went wrong: ${error.message}. Please load this page again.`; });
window.addEventListener("unhandledrejection", (event) => {
  status_.textContent = `Something went wrong: ${event.reason?.message ?? event.reason}. Please load this page again.`;
});
window.addEventListener("hashchange", () => location.reload());
