import { main } from "./lib/shell.js";

main.textContent = "…";
