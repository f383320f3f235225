/** Small helpers for building and finding elements. */

/** The element with this id. */
export function byId(id) {
  return document.getElementById(id);
}

/** A new element: properties are assigned, `data` becomes data attributes, children are nodes or text. */
export function element(tag, { data = {}, ...properties } = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  Object.assign(made.dataset, data);
  made.append(...children);
  return made;
}

/** Shows a Problem as two sentences: what happened, what to do. */
export function showProblem(place, problem) {
  const [what, advice] = problem.sentences();
  place.replaceChildren(element("strong", {}, what), ...(advice ? [" ", element("span", {}, advice)] : []));
  place.hidden = false;
}
