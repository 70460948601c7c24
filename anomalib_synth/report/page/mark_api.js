// The marking page's requests to the server.

import { ask, post } from "/page/api.js";

const address = (id) => `/api/images/${encodeURIComponent(id)}`;

export const listImages = () => ask("/api/images");
export const describeImage = (id) => ask(address(id));
export const imagePicture = (id, name) => `${address(id)}/${name}`;
export const proposeOutline = (id, shape) => ask(`${address(id)}/outline${shape === null ? "" : `?shape=${shape}`}`);
// `seen` is the version that the page shows: if somebody has changed the image since, the server answers 409.
export const editImage = (id, seen, type, edit) => post(`${address(id)}/edit`, { seen, type, edit });
export const stepImage = (id, seen, back) => post(`${address(id)}/step`, { seen, back });
