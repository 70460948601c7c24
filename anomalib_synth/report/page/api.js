// The review page's requests to the server.

export async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch {
    throw new Error("The server does not answer. Start `anomalib-synth review` again; what you decided is kept.");
  }
  const isJson = (answer.headers.get("content-type") ?? "").startsWith("application/json");
  const body = isJson ? await answer.json() : { error: await answer.text() };
  if (!answer.ok) throw Object.assign(new Error(body.error), { status: answer.status, body });
  return body;
}

export const post = (address, body) =>
  ask(address, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });

export const listSamples = (query) => ask(`/api/samples?${query}`);
export const describeSample = (id) => ask(`/api/samples/${encodeURIComponent(id)}`);
// `seen` and `version` say which decisions the page shows: if somebody has decided since, the server answers 409.
export const decide = (ids, accepted, seen) => post("/api/decide", { ids, accepted, seen });
export const decideMatching = (query, expected, accepted, version) => post("/api/decide", { query, expected, accepted, version });
export const undo = () => post("/api/undo", {});
export const picture = (id, name) => `/api/samples/${encodeURIComponent(id)}/${name}`;
