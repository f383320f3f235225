/** What the server found in a video or picture: a few figures, marked good or so-so, and its advice. */

import { element } from "./dom.js";
import { has, t } from "./i18n.js";

const FPS = 25;
// The server gives its advice at these limits too.
const SMALL_MOUTH = 32; // pixels
const PARTED_LIPS = 0.06; // of the mouth's width
const BLURRED = 0.012;
const DARK = 60; // grey level
const BRIGHT = 210;
const RESTLESS = 0.5; // eye distances per second
const MOSTLY = 0.8; // of the video

/** The server's advice, by what it says; what stands in its place in a language that has a text of its own. */
const KNOWN_ADVICE = [
  ["advice.small_mouth", /^The mouth is only (\d+) pixels wide/],
  ["advice.parted_lips", /^The lips are parted/],
  ["advice.blurred", /^The face is blurred/],
  ["advice.dark", /^The face is dark/],
  ["advice.overexposed", /^The face is overexposed/],
  ["advice.other_face", /^There is another face for ([\d.]+) s/],
  ["advice.other_face_in_picture", /^There is another face;/],
  ["advice.loop", /^The head moves where the loop turns/],
  ["advice.upside_down", /^The face is upside down/],
  ["advice.on_its_side", /^The face lies on its side/],
  ["advice.short", /^The loop is only ([\d.]+) seconds long/],
  ["advice.cut_short", /^Only the first 60 seconds/],
  ["advice.longest_part", /^The longest part without a break is used: ([\d.]+) of ([\d.]+) seconds/],
];

/** report: the quality report of a job or an avatar. */
export function reportView(report) {
  const rows = figures(report).map(({ key, value, good }) => {
    const mark = element("span", { className: "mark", data: { good } }, t(good ? "report.good" : "report.soso"));
    return element("div", {}, element("dt", {}, t(key)), element("dd", {}, value, mark));
  });
  const advice = report.advice.map((sentence) => element("li", {}, inThisLanguage(sentence)));
  return element("section", { className: "report" },
    element("h3", {}, t("report.title")),
    element("dl", {}, ...rows),
    ...(advice.length ? [element("ul", {}, ...advice)] : []));
}

function figures(report) {
  const isFilm = report.source_frames > 1;
  const light = report.brightness < DARK ? "dark" : report.brightness > BRIGHT ? "bright" : "good";
  const lips = report.mouth_opening_at_rest <= PARTED_LIPS;
  const sharp = report.sharpness >= BLURRED;
  const calm = report.loop_jerk <= RESTLESS;
  return [
    { key: "report.face", value: t("report.face_value", { pixels: report.face_width }), good: report.mouth_width >= SMALL_MOUTH },
    { key: "report.lips", value: t(lips ? "report.lips_closed" : "report.lips_parted"), good: lips },
    { key: "report.sharp", value: t(sharp ? "report.sharp_good" : "report.sharp_soso"), good: sharp },
    { key: "report.light", value: t(`report.light_${light}`), good: light === "good" },
    ...(isFilm ? [used(report), { key: "report.loop", value: t(calm ? "report.loop_good" : "report.loop_soso"), good: calm }] : []),
  ];
}

function used({ used_frames, source_frames }) {
  const seconds = (frames) => (frames / FPS).toFixed(1);
  const value = t("report.used_value", { used: seconds(used_frames), all: seconds(source_frames) });
  return { key: "report.used", value, good: used_frames >= MOSTLY * source_frames };
}

function inThisLanguage(sentence) {
  for (const [key, pattern] of KNOWN_ADVICE) {
    const found = sentence.match(pattern);
    if (found && has(key)) return t(key, found.slice(1));
  }
  return sentence;
}
