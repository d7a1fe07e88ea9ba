// Worker processes: one that dies is started again, a signal is handed on to all, and with `reload` all start
// again when a file changes.

import { type ChildProcess, spawn } from "node:child_process";
import { type Dirent, readdirSync, statSync } from "node:fs";
import path from "node:path";

/** The exit code of a worker that need not be started again: its module cannot be run. */
export const CANNOT_RUN = 2;

/** Said by the process that the user started, at the first signal. */
export const STOPPING = "towline: stopping; a second signal ends at once";

const LOOK_MS = 500;
const HEAR_MS = 1_000;
const WATCHED = /\.([cm]?[jt]s|json)$/;

interface Work {
  workers: number;
  reload: boolean;
  /** Arguments of the command, for one worker. */
  command: string[];
  signals: readonly NodeJS.Signals[];
}

/** The files of a folder and when each was changed. */
function stampsOf(folder: string, stamps = new Map<string, number>()): Map<string, number> {
  let entries: Dirent[];
  try {
    entries = readdirSync(folder, { withFileTypes: true });
  } catch {
    return stamps; // it went meanwhile
  }
  for (const entry of entries) {
    const file = path.join(folder, entry.name);
    if (entry.name.startsWith(".") || entry.name === "node_modules") continue;
    if (entry.isDirectory()) stampsOf(file, stamps);
    else if (WATCHED.test(entry.name)) stamps.set(file, statSync(file, { throwIfNoEntry: false })?.mtimeMs ?? 0);
  }
  return stamps;
}

function differ(a: Map<string, number>, b: Map<string, number>): boolean {
  return a.size !== b.size || [...a].some(([file, at]) => b.get(file) !== at);
}

class Supervisor {
  readonly #work: Work;
  readonly #running = new Set<ChildProcess>();
  /** They were told to end because a file has changed. */
  readonly #restarting = new Set<ChildProcess>();
  #stamps: Map<string, number>;
  #cannotRun = false;
  #isStopping = false;
  #exitCode = 0;
  #timer: NodeJS.Timeout | undefined;
  #end: (exitCode: number) => void = () => {};

  constructor(work: Work) {
    this.#work = work;
    this.#stamps = work.reload ? stampsOf(process.cwd()) : new Map();
  }

  run(): Promise<number> {
    const ended = new Promise<number>((resolve) => (this.#end = resolve));
    for (const signal of this.#work.signals) {
      process.on(signal, () => {
        if (!this.#isStopping) console.error(STOPPING);
        this.#stop(signal);
      });
    }
    // A worker that dies is missed at the next look: one that dies at once does not turn in circles.
    this.#timer = setInterval(() => this.#look(), LOOK_MS);
    this.#fill();
    return ended;
  }

  #look(): void {
    if (this.#work.reload) {
      const stamps = stampsOf(process.cwd());
      if (differ(stamps, this.#stamps)) {
        this.#stamps = stamps;
        this.#cannotRun = false;
        console.error("towline: a file has changed; starting again");
        for (const child of this.#running) this.#restarting.add(child);
        this.#tell("SIGTERM");
      }
    }
    this.#fill();
  }

  #fill(): void {
    while (!this.#isStopping && !this.#cannotRun && this.#running.size < this.#work.workers) this.#start();
  }

  #start(): void {
    const args = [...process.execArgv, process.argv[1] as string, ...this.#work.command];
    // In a session of its own: what is typed at the terminal comes to this process, which hands it on once.
    const child = spawn(process.execPath, args, { stdio: ["ignore", "inherit", "inherit", "ipc"], detached: true });
    this.#running.add(child);
    child.once("exit", (code, signal) => {
      this.#running.delete(child);
      const wasAsked = this.#isStopping || this.#restarting.delete(child);
      if (!wasAsked && code !== CANNOT_RUN) {
        const how = signal === null ? `exited with ${code}` : `was ended by ${signal}`;
        console.error(`towline: worker ${child.pid} ${how}; starting another`);
      }
      // Ended by a signal that came before it listened: as asked.
      if (this.#isStopping) this.#exitCode = Math.max(this.#exitCode, code ?? 0);
      else if (code === CANNOT_RUN) this.#giveUp();
      this.#endWhenIdle();
    });
  }

  /** With `reload` the next change may help. */
  #giveUp(): void {
    this.#cannotRun = true;
    if (this.#work.reload) return;
    this.#exitCode = CANNOT_RUN;
    this.#stop("SIGTERM");
  }

  #stop(signal: NodeJS.Signals): void {
    if (this.#isStopping) {
      // Asked twice: the workers end at once, those too that cannot hear it because a handler holds up their loop.
      this.#exitCode = 1;
      setTimeout(() => this.#tell("SIGKILL"), HEAR_MS).unref();
    }
    this.#isStopping = true;
    clearInterval(this.#timer);
    this.#tell(signal);
    this.#endWhenIdle();
  }

  #tell(signal: NodeJS.Signals): void {
    for (const child of this.#running) child.kill(signal);
  }

  #endWhenIdle(): void {
    if (this.#isStopping && this.#running.size === 0) this.#end(this.#exitCode);
  }
}

/** Until a signal; the exit code. */
export function supervise(work: Work): Promise<number> {
  return new Supervisor(work).run();
}
