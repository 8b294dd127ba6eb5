"use strict";

const STAGES = ["base", "collective", "directions", "personal"];
const at = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token") || "";
let running = null;
const LISTED = 500;
let messages = [];
let last = 0;
let refused = 0;

function readFragment() {
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (!given) return;
  token = given;
  sessionStorage.setItem("token", token);
  history.replaceState(null, "", location.pathname);
}

async function ask(path, options = {}) {
  const headers = { Authorization: `Bearer ${token}`, "Content-Type": "application/json" };
  const response = await fetch(path, { ...options, headers });
  if (response.ok) return response;
  const body = await response.json().catch(() => ({}));
  const error = new Error(body.error ? body.error.message : response.statusText);
  error.status = response.status;
  throw error;
}

function show(inside) {
  at("inside").hidden = !inside;
  at("door").hidden = inside;
  if (!inside) at("who").textContent = "Locked.";
}

function describe(list, pairs) {
  const nodes = pairs.filter(([, value]) => value !== "" && value !== undefined).flatMap(([name, value]) => {
    const dt = document.createElement("dt");
    const dd = document.createElement("dd");
    dt.textContent = name;
    dd.textContent = value;
    return [dt, dd];
  });
  list.replaceChildren(...nodes);
}

const day = (text) => (text ? new Date(text).toLocaleString() : "");
const number = (value) => Number(value).toLocaleString();

function showState(state) {
  at("who").textContent = `${state.client} · ${state.task} · ${state.base_model}` + (state.busy ? ` · ${state.busy}` : "");
  const problems = [state.problem, state.notice].filter(Boolean).join("; ");
  at("problem").hidden = !problems;
  at("problem").textContent = problems;
  const { release, personal } = state;
  const edited = release ? release.edited || [] : [];
  at("directions").hidden = !edited.length;
  for (const stage of STAGES) at(stage).classList.toggle("chosen", stage === state.stage);
  at("why").textContent = "The marked one answers you" + (personal && (personal.judged || []).length
    ? ": your personal shift, unless another was clearly better at items of yours that were held back to tell." : ".");
  describe(at("release"), release ? [
    ["version", release.version], ["issued", day(release.issued)], ["expires", day(release.expires)],
    ["rounds", release.rounds], ["layers", (release.layers || []).join(", ")], ["positions", release.positions],
    ["rank", release.rank], ["directions in layers", edited.join(", ")],
    ["of any one contributor", release.privacy], ["digest", release.digest.slice(0, 16)],
  ] : [["none yet", "the cloud has sent none"]]);
  describe(at("shift"), personal ? [
    ["rank", personal.rank], ["parameters", number(personal.parameters)], ["fitted on", `${number(personal.items)} items`],
    ["on release", personal.release], ["came to be", personal.origin], ["kept since", day(personal.stored)],
    ...(personal.promise ? [["tells of any one item", personal.promise]] : []),
    ...(personal.judged || []).map(({ stage, loss }) => [`loss, ${stage}`, Number(loss).toFixed(3)]),
  ] : [["none yet", "it is fitted on the first release"]]);
  describe(at("history"), [
    [state.sealed_history ? "imported" : "in your file",
      `${number(state.history_items)} items${state.sealed_history ? ", encrypted" : ""}`], ["learned", `${number(state.learned_items)} items, encrypted`],
    ["the cloud is answered", state.paused ? "nothing: paused"
      : (state.not_consented || []).length ? `all but ${state.not_consented.join(", ")}` : "what it may ask"],
    ["vault's key", state.key],
    ["scores sent", state.shares_metrics ? "sums only, as you allowed" : "none"],
  ]);
}

function showTotals(state) {
  const sent = state.sent || [];
  const messages = sent.reduce((sum, total) => sum + Number(total.messages), 0);
  const bytes = sent.reduce((sum, total) => sum + Number(total.bytes), 0);
  const kinds = sent.map((total) => `${number(total.messages)} × ${total.call}`).join(", ");
  at("total").textContent = messages
    ? `${number(messages)} messages, ${number(bytes)} bytes in all: ${kinds}. The latest are listed.` : "Nothing yet.";
}

// Refusals the owner has not seen yet.
function showAlarm(state) {
  refused = Number(state.refused);
  const unseen = refused - Math.min(Number(localStorage.getItem("refused") || 0), refused);
  at("alarm").hidden = !unseen;
  at("alarm").querySelector("p").textContent =
    `${number(unseen)} requests of the cloud's were refused. The latest: ${state.refusal}`;
}

// Messages after the last one that is known; the rest is not read again.
async function readSent() {
  const news = await ask(`owner/sent?after=${last}&newest=${last ? 0 : LISTED}`).then((response) => response.json());
  if (!news.length) return;
  last = Number(news[news.length - 1].number);
  messages = [...messages, ...news].slice(-LISTED);
  showSent();
}

function showSent() {
  at("messages").replaceChildren(...messages.slice().reverse().map((message) => {
    const row = document.createElement("tr");
    for (const text of [day(message.time), message.call, number(message.bytes)]) {
      row.insertCell().textContent = text;
    }
    const fields = row.insertCell();
    for (const field of message.fields) {
      const one = document.createElement("span");
      const bytes = document.createElement("small");
      bytes.textContent = ` ${number(field.bytes)}`;
      one.append(`${field.name} = ${field.value}`, bytes);
      fields.append(one);
    }
    if (message.reason) fields.append(`refused: ${message.reason}`);
    return row;
  }));
}

async function refresh() {
  try {
    const state = await ask("owner/state").then((response) => response.json());
    show(true);
    showState(state);
    showTotals(state);
    showAlarm(state);
    await readSent();
  } catch (error) {
    if (error.status === 401) return show(false);
    at("problem").hidden = false;
    at("problem").textContent = error.message;
    show(true);
  }
}

async function answer(stage, prompt, signal) {
  const place = at(stage).querySelector("pre");
  place.className = "";
  place.textContent = "…";
  try {
    const messages = [{ role: "user", content: prompt }];
    const body = JSON.stringify({ model: `fedperfit-${stage}`, messages, temperature: 0, stream: true });
    const response = await ask("v1/chat/completions", { method: "POST", body, signal });
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) break;
      const lines = (rest + value).split("\n\n");
      rest = lines.pop();
      for (const line of lines) {
        if (line === "data: [DONE]") continue;
        text += JSON.parse(line.slice(6)).choices.map((choice) => choice.delta.content || "").join("");
        place.textContent = text;
      }
    }
    place.textContent = text.trim() || "(nothing)";
  } catch (error) {
    if (error.name === "AbortError") return;
    place.className = "absent";
    place.textContent = error.message;
  }
}

at("ask").addEventListener("submit", async (event) => {
  event.preventDefault();
  if (running) running.abort();
  const mine = running = new AbortController();
  at("go").disabled = true;
  const there = STAGES.filter((stage) => !at(stage).hidden);
  for (const stage of there) at(stage).querySelector("pre").textContent = "";
  for (const stage of there) await answer(stage, at("prompt").value, mine.signal);
  at("go").disabled = false;
});

at("door").addEventListener("submit", (event) => {
  event.preventDefault();
  token = at("token").value.trim();
  sessionStorage.setItem("token", token);
  refresh();
});

at("seen").addEventListener("click", () => {
  localStorage.setItem("refused", refused);
  at("alarm").hidden = true;
});

readFragment();
window.addEventListener("hashchange", () => { readFragment(); refresh(); });
refresh();
setInterval(refresh, 3000);
