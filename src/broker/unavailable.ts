/**
 * The store can't be reached, or did not answer in time. An event that was to be stored may have been stored, or not.
 * Whoever rejects with it MUST call `EventLogListener.up(true)` once the store answers again.
 */
export class BrokerUnavailable extends Error {
  override name = 'BrokerUnavailable'
}
