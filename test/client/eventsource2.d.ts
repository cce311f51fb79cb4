/** The second major version of `eventsource`, which half of its users still have: it comes without types. */
declare module 'eventsource2' {
  const EventSource2: new (url: string) => globalThis.EventSource
  export default EventSource2
}
