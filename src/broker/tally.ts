/** For how long a count that was given to a tally is true, in milliseconds. */
export const TALLY_MS = 2000

/**
 * Adds up, over all instances, how much each client did lately.
 *
 * What an implementation owes:
 * - It MUST NOT reject: a rate limit must not fail because the store is away.
 * - It MUST leave out of its answer whatever is older than `TALLY_MS`.
 */
export interface Tally {
  /**
   * Tells how much some clients did on this instance since it was told last, by name. Resolves with how much each of
   * them did on all other instances within `TALLY_MS`; a name of which nothing is known is missing.
   */
  count(counts: ReadonlyMap<string, number>): Promise<ReadonlyMap<string, number>>
}
