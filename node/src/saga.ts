// A saga's definition: its steps, and what undoes them.

import { checkObject, textsOf } from "./arguments.js";
import { InvalidArgumentError, InvalidSagaError } from "./errors.js";
import { native } from "./native.js";
import type { SagaOptions, SagaStepOptions } from "./options.js";
import type { SagaCall } from "./saga_call.js";
import { kindOf } from "./words.js";

/**
 * Runs a step, or undoes it. Returning means that it succeeded, and a value other than undefined is the step's
 * output. Throwing fails the attempt: the step's retry policy decides, and an error that is classified as permanent
 * is not tried again; `Retry`, `Reject` and `Defer` say more. It may run more than once: see `SagaCall.key`.
 */
export type SagaHandler<C = unknown> = (call: SagaCall<C>) => unknown;

/** Of a definition. */
export interface SagaDefinitionOptions extends SagaOptions {
  /** [1, 4294967295]; 1 unless given. Grows when the steps change: running sagas go on under theirs. */
  version?: number;
}

/** Of a step. */
export interface StepOptions<C = unknown> extends SagaStepOptions {
  /** Undoes the step. Without one it says `changesNothing`, or stands at or behind the pivot. */
  compensate?: SagaHandler<C>;
}

/** One of several steps that run side by side. */
export interface SagaBranch<C = unknown> extends StepOptions<C> {
  /** Of the step, unique in its saga. */
  name: string;
  /** Runs the step; left out where a command does. */
  execute?: SagaHandler<C>;
}

/** @internal What a step listens to, where its success and its failure are published, and whether it is awaited. */
export type StepEvents = readonly [listenTo: string, onSuccess: string, onFailure: string, isAwaited: boolean];

const NO_EVENTS: StepEvents = ["", "", "", false];

interface Step {
  name: string;
  execute: SagaHandler | undefined;
  compensate: SagaHandler | undefined;
  compensates: boolean;
  hasCommand: boolean;
  texts: string[];
  events: StepEvents;
}

function checkHandler(handler: unknown, what: string): void {
  if (handler === undefined || typeof handler === "function") return;
  throw new InvalidArgumentError(`${what} is ${kindOf(handler)}, but must be a function`);
}

/** @internal */
export function stepOf(branch: SagaBranch, events = NO_EVENTS): Step {
  if (typeof branch !== "object" || branch === null) {
    throw new InvalidArgumentError(`a step is ${kindOf(branch)}, but must be an object`);
  }
  const { name, execute, compensate, ...settings } = branch;
  if (typeof name !== "string") {
    throw new InvalidArgumentError(`the name of a step is ${kindOf(name)}, but must be a string`);
  }
  checkHandler(execute, `the function of step '${name}'`);
  checkHandler(compensate, `the compensation of step '${name}'`);
  // What cannot be written cannot be written the next time either.
  const texts = [...textsOf("SagaStep", settings, ["compensate"]), "classify.permanent_types", "PayloadError"];
  const compensates = compensate !== undefined || (settings.compensationCommand ?? "") !== "";
  return { name, execute, compensate, compensates, hasCommand: (settings.command ?? "") !== "", texts, events };
}

/** What a `Saga` and a `Choreography` have in common. */
export abstract class SagaDefinition {
  /** 1 to 64 letters, digits, '-', '_'. */
  readonly type: string;
  /** Of the definition. */
  readonly version: number;
  readonly #texts: string[];
  readonly #beginsWith: string;
  /** @internal */
  protected readonly stages: Step[][] = [];

  /** @internal */
  constructor(type: string, options: SagaDefinitionOptions, beginsWith: string) {
    checkObject(options, "options of the saga");
    const { version = 1, ...settings } = options;
    this.type = type;
    this.version = version;
    this.#texts = textsOf("Saga", settings, ["version"]);
    this.#beginsWith = beginsWith;
  }

  /** The flow as a Mermaid diagram. */
  visualize(): string {
    return native.sagaDiagram(this.fields());
  }

  /**
   * @internal type, version, options, [name, whether it compensates, options, events] of the steps of each stage, and
   * what begins it.
   */
  fields(): unknown[] {
    const stages = this.stages.map((stage) =>
      stage.map((one) => [one.name, one.compensates, one.texts, one.events]));
    return [this.type, this.version, this.#texts, stages, this.#beginsWith];
  }

  /** @internal Before it runs here. */
  handlers(): Map<string, { execute: SagaHandler | undefined; compensate: SagaHandler | undefined }> {
    const steps = this.stages.flat();
    for (const { name, execute, hasCommand, events: [, , , isAwaited] } of steps) {
      if (execute !== undefined || hasCommand || isAwaited) continue;
      throw new InvalidSagaError(`step '${name}' has neither a function nor a command; give it one of them`);
    }
    return new Map(steps.map(({ name, execute, compensate }) => [name, { execute, compensate }]));
  }
}

/**
 * A business transaction of several steps, each of which can be undone: when one fails for good, it and all before
 * it are undone, the newest first. `C` is the type of its context, what the steps hand on.
 *
 *     const order = new Saga("order")
 *       .step("reserve", reserve, { compensate: release })
 *       .step("charge", charge, { compensate: refund, timeoutMs: 10_000 })
 *       .step("ship", ship, { pivot: true });
 *
 * What is wrong with a definition is told by `engine.runSaga` and `engine.sagas.start` (InvalidSagaError).
 */
export class Saga<C = unknown> extends SagaDefinition {
  constructor(type: string, options: SagaDefinitionOptions = {}) {
    super(type, options, "");
  }

  /**
   * One step more. With the option `command` its function is left out: then a message is published and its reply
   * waited for; see `Sagas.reply`.
   */
  step(name: string, execute: SagaHandler<C> | undefined, options: StepOptions<C> = {}): this {
    checkObject(options, `options of step '${name}'`);
    return this.parallel([{ ...options, name, execute }]);
  }

  /** They begin together, and what follows begins when all have succeeded. They cannot change the context. */
  parallel(branches: readonly SagaBranch<C>[]): this {
    if (!Array.isArray(branches)) {
      throw new InvalidArgumentError(`the branches are ${kindOf(branches)}, but must be a list`);
    }
    this.stages.push(branches.map((one) => stepOf(one as SagaBranch)));
    return this;
  }
}
