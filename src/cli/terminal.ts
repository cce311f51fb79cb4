/** The environment of a command. */
export type Env = Readonly<Record<string, string | undefined>>

/** Where a command writes. */
export interface Terminal {
  /** Standard output: what was asked for. */
  out(text: string): void
  /** Standard error: what else there is to say. */
  err(text: string): void
  /** Resolves when what was written has been taken; undefined where little waits. */
  ready?(): Promise<unknown> | undefined
  /** Aborted when nobody reads what is written any more, as behind `| head -1`. */
  readonly gone?: AbortSignal
}
