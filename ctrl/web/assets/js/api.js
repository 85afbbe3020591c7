// The fabric's API, as the unix socket has it.

const PATIENCE = 30_000;

export class Refused extends Error {
  constructor(status, sentence) {
    super(sentence);
    this.status = status;
  }
}

async function sentence(response) {
  const text = (await response.text()).slice(0, 4096);
  try {
    return JSON.parse(text).error || text;
  } catch {
    return text || `refused with ${response.status}`;
  }
}

async function ask(method, path, body) {
  const options = { method, signal: AbortSignal.timeout(PATIENCE), redirect: "error" };
  if (body !== undefined) {
    options.headers = { "content-type": "application/json" };
    options.body = JSON.stringify(body);
  }
  const response = await fetch(path, options);
  if (!response.ok) throw new Refused(response.status, await sentence(response));
  return response.json();
}

const part = encodeURIComponent;

export const status = () => ask("GET", "/v1/status");
export const topology = () => ask("GET", "/v1/topology");
export const cables = () => ask("GET", "/v1/cables");
export const places = () => ask("GET", "/v1/places");
export const setState = (cable, state) => ask("PUT", `/v1/cables/${part(cable)}/state`, { state });
export const impair = (cable, change) => ask("PUT", `/v1/cables/${part(cable)}/impairment`, change);
export const power = (node, action) => ask("PUT", `/v1/nodes/${part(node)}/power`, { action });
export const exec = (node, argv) => ask("POST", `/v1/nodes/${part(node)}/exec`, { argv, stdin: "" });
export const vmArgs = (position, nic) => ask("GET", `/v1/vm-args/${part(position)}?nic=${part(nic)}`);
export const capturePath = (cable, seconds) => `/v1/cables/${part(cable)}/capture?seconds=${part(seconds)}`;
