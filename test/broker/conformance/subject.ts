import type { Test } from 'tap'
import type { Broker } from '../../../src/broker/broker.ts'
import type { Rule, Rules } from '../../../src/rules/rules.ts'

/** A broker to be held against its interfaces, over a store of its own that is empty. */
export interface Subject {
  /** Not started. The suite closes it. */
  readonly broker: Broker
  /** Those that hold for all of its brokers. */
  readonly rules: Rules
  /** Whether the store keeps what it holds while no broker is open on it. */
  readonly keeps: boolean
  /**
   * Opens another broker over the same store, as after a restart of the instance. The suite has closed the one before
   * it, and starts and closes this one. A store that keeps nothing begins another life.
   */
  restart(): Promise<Broker>
  /** Opens a broker beside the others over the same store, as another instance does. Only where several may share one. */
  another?(): Promise<Broker>
  /** Resolves when so much time has passed for the broker and its store, in milliseconds. */
  pass(ms: number): Promise<void>
  /** Sets the store's clock back. Only where that can be done. */
  stepBack?(ms: number): void
  /**
   * How much a question costs the store: entries looked at, or commands sent. Only where it can be counted.
   */
  cost?(ask: () => Promise<unknown>): Promise<number>
  /** Whether `pass` takes no time, so that ten minutes may pass. */
  readonly isHeld: boolean
}

export interface SubjectSettings {
  readonly RING_SIZE: number
  readonly RING_TTL: number
  readonly rules?: readonly Rule[]
}

export type MakeSubject = (t: Test, settings: SubjectSettings) => Promise<Subject>
