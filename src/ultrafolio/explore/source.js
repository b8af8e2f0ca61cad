"use strict";
// Two sources of the same data: a server that walks, or the part of a graph in a file.
// There are no rules here: a step is an edge that the source holds.

const held = document.getElementById("data") ? JSON.parse(document.getElementById("data").textContent) : null;

/** A request that failed; its message is the reason, for the reader. */
class Refusal extends Error {}

const served = {
  async get(address) {
    const answer = await fetch(address);
    const body = await answer.json();
    if (!answer.ok) throw new Refusal(body.error);
    return body;
  },
  meta() { return this.get("api/meta"); },
  story(p) { return this.get(`api/${p}/story`); },
  along(p, path, from) { return this.get(`api/${p}/along?path=${path.join(".")}&from=${from}`); },
  search(p, text) { return this.get(`api/${p}/search?expression=${encodeURIComponent(text)}`); },
};

const embedded = {
  async meta() { return held.meta; },
  async story(p) { return held.graphs[p].story; },

  /** A node in the server's form; embed.py documents the packed form. */
  node(p, number) {
    const pool = held.pool, all = (numbers) => numbers.map((i) => pool[i]);
    const [rows, flags, folio, actors, moves, refused, broken, pending, stalls] = held.graphs[p].nodes[number];
    const state = {};
    let at = 0;
    for (const [name, n] of Object.entries(held.sizes)) {
      state[name] = all(rows.slice(at, at + n));
      at += n;
    }
    const enabled = moves.map(([i, to]) => ({ ...pool[i], to }));
    return {
      id: number, state, flags: pool[flags], folio: pool[folio], actors: all(actors), enabled, refused: all(refused),
      broken, pending, stalls: all(stalls),
    };
  },

  /** The nodes on a path from number `from` on. */
  async along(p, path, from) {
    let here = this.node(p, 0);
    const nodes = [here];
    path.forEach((index, step) => {
      const move = here.enabled[index], n = here.enabled.length;
      if (!move) {
        const steps = n ? `only ${plural(n, "step")} ${n === 1 ? "is" : "are"}` : "no step is";
        throw new Refusal(`index ${index} at step ${step + 1}: ${steps} enabled`);
      }
      if (move.to < 0) {
        const on = `${held.meta.commands[p]} --path ${path.join(".")}`;
        throw new Refusal(`step ${step + 1} leads out of this file: ${held.graphs[p].coverage}\nwalk on with: ${on}`);
      }
      nodes.push(here = this.node(p, move.to));
    });
    return { nodes: nodes.slice(from) };
  },

  /** A shortest path to a state in which an expression holds; breadth-first: a Map keeps the order of insertion. */
  async search(p, text) {
    const holds = compile(held.meta, text, this.node(p, 0).state), nodes = held.graphs[p].nodes;
    const came = new Map([[0, null]]), all = plural(nodes.length, "state");
    for (const number of came.keys()) {
      if (holds(this.node(p, number).state)) {
        const path = [];
        for (let at = number; came.get(at); at = came.get(at)[0]) path.unshift(came.get(at)[1]);
        return { path, message: `the nearest of the ${all} in this file: ${plural(path.length, "step")}` };
      }
      nodes[number][4].forEach(([, to], index) => {
        if (to >= 0 && !came.has(to)) came.set(to, [number, index]);
      });
    }
    return { path: null, message: `none of the ${all} in this file satisfies it` };
  },
};

const source = held ? embedded : served;
