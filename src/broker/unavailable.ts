/**
 * The store can't be reached, or did not answer in time. An event that was to be stored may have been stored, or not.
 * An event log that rejects a question with it (all of its methods but `append` ask one) MUST call
 * `EventLogListener.up(true)` once the store answers again, also if it never said that it is down.
 */
export class BrokerUnavailable extends Error {
  override name = 'BrokerUnavailable'
}
