// Which runs are drawn, each with a colour and dash of its own, and the one that the rail and the samples speak of.
// Events: "change" (other runs are drawn), "focus" (another run is spoken of).

const FIRST = 8; // runs that are drawn while nobody has chosen any
export const MOST = 50;

/** The newest first, those that are being trained before all others. */
export function ordered(cards) {
  const active = (card) => Number(card.state === "running" || card.state === "paused");
  return [...cards.values()].sort((a, b) => active(b) - active(a) || (b.started ?? 0) - (a.started ?? 0) || (a.id < b.id ? -1 : 1));
}

export class Selection extends EventTarget {
  constructor(feed, focus) {
    super();
    this.feed = feed;
    this.slots = new Map(); // id → slot
    this.focus = focus;
    this.chosen = false;
  }

  get ids() {
    return [...this.slots.keys()];
  }

  /** Look at the cards anew: runs are gone, and until somebody chooses, new ones take the place of old ones. */
  refresh() {
    const { cards } = this.feed;
    const drawable = ordered(cards).filter((card) => card.step !== null).map((card) => card.id);
    const kept = this.ids.filter((id) => drawable.includes(id));
    this.draw(this.chosen ? kept : drawable.slice(0, FIRST));
    if (!cards.has(this.focus)) this.speakOf(this.ids[0] ?? ordered(cards)[0]?.id ?? "");
  }

  /** Draw these runs; those that are drawn already keep their colours. */
  draw(ids) {
    if (ids.length === this.slots.size && ids.every((id) => this.slots.has(id))) return;
    const old = this.slots;
    const taken = new Set(ids.map((id) => old.get(id)));
    let next = 0;
    const free = () => { while (taken.has(next)) next += 1; taken.add(next); return next; };
    this.slots = new Map(ids.map((id) => [id, old.get(id) ?? free()]));
    this.dispatchEvent(new Event("change"));
  }

  toggle(id) {
    if (this.feed.cards.get(id)?.step === null) return false;
    if (!this.slots.has(id) && this.slots.size >= MOST) return false;
    this.chosen = true;
    this.draw(this.slots.has(id) ? this.ids.filter((other) => other !== id) : [...this.ids, id]);
    return true;
  }

  choose(ids) {
    this.chosen = true;
    this.draw(ids.slice(0, MOST));
  }

  newest() {
    this.chosen = false;
    this.refresh();
  }

  speakOf(id) {
    if (id === this.focus) return;
    this.focus = id;
    this.dispatchEvent(new Event("focus"));
  }
}
