/** Brings a picture in the gallery to life while the pointer or the focus is on it: the avatar's idle loop is played over it. */

const CALM = matchMedia("(prefers-reduced-motion: reduce)");

/** host: the element that holds the still picture. address: of the film. Where it cannot be played, the picture stays. */
export function comesAlive(host, address) {
  let film = null;
  const start = () => {
    if (film || CALM.matches) return;
    film = Object.assign(document.createElement("video"), { src: address, muted: true, loop: true, autoplay: true, playsInline: true });
    film.ariaHidden = "true";
    film.addEventListener("playing", ({ target }) => { target.dataset.playing = "true"; });
    film.addEventListener("error", ({ target }) => target.remove());
    host.querySelector("img").after(film);
  };
  const stop = () => {
    if (host.matches(":hover, :focus-visible")) return;
    film?.pause();
    film?.remove();
    film = null;
  };
  for (const event of ["pointerenter", "focus"]) host.addEventListener(event, start);
  for (const event of ["pointerleave", "blur"]) host.addEventListener(event, stop);
}
