// The rater's page: consent, instructions, trials, thanks. Every answer is stored on the server before the next trial begins.
"use strict";

const page = document.getElementById("study");
const status_ = document.getElementById("status");
const progress = document.getElementById("progress");
const remembered = `kinema-study-${page.dataset.study}`;
const SIDES = ["left", "right"];
const KEYS = { arrowleft: 0, f: 0, arrowright: 1, j: 1 };
const LETTERS = "ABCDEFGH";
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

// The same elements in every trial: a browser that lets a video play only after a touch asks for one touch, not one a trial.
const players = [];
function player(place) {
  if (!players[place]) {
    const video = document.createElement("video");
    Object.assign(video, { muted: true, playsInline: true, disablePictureInPicture: true, preload: "auto" });
    video.style.aspectRatio = page.dataset.aspect;
    players[place] = video;
  }
  return players[place];
}

function ready(video, source) {
  return new Promise((resolve, reject) => {
    video.oncanplaythrough = resolve;
    video.onloadedmetadata = () => setTimeout(resolve, 1000);  // iOS may load no more than this before it plays
    video.onerror = () => reject(new Error("this browser cannot play the videos (H.264 in MP4)"));
    video.src = source;
    video.load();
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

class TrialPlugin {
  static info = {
    name: "trial", version: "1.0.0", data: {},
    parameters: { shown: { type: ParameterType.OBJECT }, next: { type: ParameterType.OBJECT, default: null } },
  };

  constructor(jsPsych) { this.jsPsych = jsPsych; }

  async trial(display, { shown, next }) {
    show(display, "trial");
    showProgress();
    display.querySelector(".practice").hidden = !shown.practice;
    const group = display.querySelector(".clips");
    group.dataset.count = shown.clips.length;
    group.replaceChildren(...shown.clips.map((_, place) => clipButton(place)));
    const videos = [...group.querySelectorAll("video")];
    group.classList.add("loading");
    const stopped = new AbortController();
    const sources = await Promise.all(shown.clips.map(load));
    await Promise.all(videos.map((video, place) => ready(video, sources[place])));
    await this.play(display, videos, stopped.signal);
    group.classList.remove("loading");
    const start = performance.now();
    if (next) for (const address of next.clips) load(address).catch(() => {});
    const ranking = await (page.dataset.kind === "pair" ? choose : order)(display, stopped.signal);
    await this.store(group, shown.id, ranking, Math.round(performance.now() - start));
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

  async store(group, trial, ranking, milliseconds) {
    for (const button of group.querySelectorAll(".clip")) button.disabled = true;
    group.children[ranking[0]].classList.add("chosen");
    const response = await insist("POST", "api/votes", { trial, ranking, milliseconds });
    // 409: stored already, by an attempt whose reply was lost or in another window.
    if (!response.ok && response.status !== 409) throw new Error(`the answer was refused (${response.status})`);
    answered += 1;
    showProgress();
  }
}

// Answers: places from left to right, best first ------------------------------------------------------------------------

function clipButton(place) {
  const pair = page.dataset.kind === "pair";
  const button = document.createElement("button");
  const caption = document.createElement("span");
  const [name, ...keys] = pair ? [["Left", "←", "F"], ["Right", "→", "J"]][place] : [LETTERS[place]];
  button.className = "clip";
  button.setAttribute("aria-label", pair ? `Choose the ${SIDES[place]} video` : `Video ${LETTERS[place]}`);
  button.setAttribute("aria-keyshortcuts", pair ? ["ArrowLeft F", "ArrowRight J"][place] : LETTERS[place]);
  caption.append(name);
  for (const key of keys) caption.append(" ", Object.assign(document.createElement("kbd"), { textContent: key }));
  button.append(player(place), caption);
  return button;
}

// Calls act with the key's name in lower case, unless the key is held down or belongs to the browser.
function onKey(signal, act) {
  document.addEventListener("keydown", (event) => {
    if (event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
    if (act(event.key.toLowerCase())) event.preventDefault();
  }, { signal });
}

// Waits for the choice of one of two: a key, a click or a touch.
function choose(display, signal) {
  return new Promise((resolve) => {
    const answer = (place) => resolve([place, 1 - place]);
    display.querySelectorAll(".clip").forEach((button, place) => {
      button.addEventListener("click", () => answer(place), { once: true, signal });
    });
    onKey(signal, (key) => {
      if (key in KEYS) answer(KEYS[key]);
      return key in KEYS;
    });
  });
}

// Waits for an order: videos get their numbers in turn, by letter, click or touch, and lose them again; then it is confirmed.
function order(display, signal) {
  const buttons = [...display.querySelectorAll(".clip")];
  const done = display.querySelector(".done");
  const ranking = [];
  let confirmed = false;
  const complete = () => ranking.length === buttons.length;

  function toggle(place) {
    if (confirmed) return;
    if (ranking.includes(place)) ranking.splice(ranking.indexOf(place), 1);
    else ranking.push(place);
    refresh();
  }

  function refresh() {
    buttons.forEach((button, place) => {
      const rank = ranking.indexOf(place) + 1;
      button.dataset.rank = rank || "";
      button.setAttribute("aria-pressed", rank > 0);
      button.setAttribute("aria-label", `Video ${LETTERS[place]}${rank ? `, number ${rank}` : ""}`);
    });
    done.disabled = !complete();
    done.nextElementSibling.textContent = complete() ? "1 is the best." : ranking.length ? `Now number ${ranking.length + 1}.` : "Choose the best video first.";
  }

  refresh();
  return new Promise((resolve) => {
    buttons.forEach((button, place) => button.addEventListener("click", () => toggle(place), { signal }));
    done.addEventListener("click", () => {
      confirmed = done.disabled = true;
      resolve(ranking);
    }, { once: true, signal });
    onKey(signal, (key) => {
      const place = LETTERS.toLowerCase().indexOf(key);
      if (key === "enter" && complete()) done.click();
      else if (key === "backspace" && ranking.length) toggle(ranking.at(-1));
      else if (key.length === 1 && place >= 0 && place < buttons.length) toggle(place);
      else return false;
      return true;
    });
  });
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
    const parts = trials.map((shown, number) => ({ type: TrialPlugin, shown, next: trials[number + 1] ?? null }));
    await jsPsych().run([{ type: TextPlugin, template: "instructions" }, ...parts]);
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
