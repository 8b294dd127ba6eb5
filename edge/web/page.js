"use strict";

const STAGES = ["base", "collective", "directions", "personal"];
const at = (id) => document.getElementById(id);
let token = sessionStorage.getItem("token") || "";
let running = null;

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
  at("problem").hidden = !state.problem;
  at("problem").textContent = state.problem;
  const { release, personal } = state;
  const edited = release ? release.edited || [] : [];
  at("directions").hidden = !edited.length;
  for (const stage of STAGES) at(stage).classList.toggle("chosen", stage === state.stage);
  at("why").textContent = "The marked one answers you" + (personal && (personal.judged || []).length
    ? ": your personal shift, unless another was clearly better at items of yours that were held back to tell." : ".");
  describe(at("release"), release ? [
    ["version", release.version], ["issued", day(release.issued)], ["expires", day(release.expires)],
    ["rounds", release.rounds], ["layers", (release.layers || []).join(", ")], ["positions", release.positions],
    ["rank", release.rank], ["directions in layers", edited.join(", ")], ["digest", release.digest.slice(0, 16)],
  ] : [["none yet", "the cloud has sent none"]]);
  describe(at("shift"), personal ? [
    ["rank", personal.rank], ["parameters", number(personal.parameters)], ["fitted on", `${number(personal.items)} items`],
    ["on release", personal.release], ["came to be", personal.origin], ["kept since", day(personal.stored)],
    ...(personal.judged || []).map(({ stage, loss }) => [`loss, ${stage}`, Number(loss).toFixed(3)]),
  ] : [["none yet", "it is fitted on the first release"]]);
  describe(at("history"), [
    ["in your file", `${number(state.history_items)} items`], ["learned", `${number(state.learned_items)} items, encrypted`],
    ["scores sent", state.shares_metrics ? "sums only, as you allowed" : "none"],
  ]);
}

function showSent(messages) {
  const total = messages.reduce((sum, message) => sum + Number(message.bytes), 0);
  const calls = {};
  for (const message of messages) calls[message.call] = (calls[message.call] || 0) + 1;
  const kinds = Object.entries(calls).map(([call, count]) => `${count} × ${call}`).join(", ");
  at("total").textContent = messages.length
    ? `${messages.length} messages, ${number(total)} bytes in all: ${kinds}.` : "Nothing yet.";
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
    return row;
  }));
}

async function refresh() {
  try {
    const [state, sent] = await Promise.all(["owner/state", "owner/sent"].map((path) => ask(path).then((r) => r.json())));
    show(true);
    showState(state);
    showSent(sent);
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
    const body = JSON.stringify({ model: `fedperfit-${stage}`, prompt, stream: true });
    const response = await ask("v1/completions", { method: "POST", body, signal });
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
        text += JSON.parse(line.slice(6)).choices.map((choice) => choice.text || "").join("");
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

readFragment();
window.addEventListener("hashchange", () => { readFragment(); refresh(); });
refresh();
setInterval(refresh, 3000);
