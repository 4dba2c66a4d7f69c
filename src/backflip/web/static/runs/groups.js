// Which metrics are drawn together, and under which heading. What is not named here stands under "Everything else".

const chart = (id, names, unit = "") => ({ id, names, unit });

export const GROUPS = [
  ["reward", [chart("reward", ["objective/scores", "objective/gold", "objective/sentinel"]), chart("penalised", ["objective/rlhf_reward"]), chart("equal", ["group/zero_std_share"]), chart("spread", ["group/std"])]],
  ["kl", [chart("kl", ["kl/seq_nats"], "nats"), chart("beta", ["objective/kl_coef"])]],
  ["text", [chart("entropy", ["objective/entropy"], "nats"), chart("length", ["rollout/length"]), chart("unfinished", ["rollout/unfinished_share"])]],
  ["updates", [chart("clipped", ["policy/clipfrac_avg", "val/clipfrac_avg"]), chart("ratio", ["val/ratio"]), chart("ratiomax", ["val/ratio_max_error"]), chart("approxkl", ["policy/approxkl_avg"], "nats"), chart("valueloss", ["loss/value_avg"]), chart("policyloss", ["loss/policy_avg"])]],
  ["fitting", [
    chart("accuracy", ["rewards/accuracies"]), chart("rewardloss", ["loss/reward"], "nats"), chart("gain", ["gain"]), chart("directloss", ["loss/direct"]), chart("margin", ["rewards/margins"]),
    chart("implicit", ["rewards/chosen", "rewards/rejected"]), chart("logps", ["logps/chosen", "logps/rejected"], "nats"), chart("tuningloss", ["loss/sft"], "nats"),
  ]],
  ["machine", [chart("perstep", ["timings/total"], "s"), chart("parts", ["timings/rollout", "timings/reward", "timings/score", "timings/update"], "s"), chart("gradient", ["grad_norm"]), chart("rate", ["lr"])]],
];

const NAMED = new Set(GROUPS.flatMap(([, charts]) => charts.flatMap(({ names }) => names)));
const NEVER = new Set(["wall", "episode", "objective/kl"]); // an axis, a count, and the same as kl/seq_nats under another name

/** The metrics that no group names, of those there are. */
export function others(names) {
  return [...names].filter((name) => !NAMED.has(name) && !NEVER.has(name)).sort();
}

/** How the metrics of one chart are told apart where colour and dash say whose they are. */
export const MARKS = ["", "circle", "square"];
