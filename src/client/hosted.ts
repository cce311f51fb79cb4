/**
 * What the server hands out as `/client.js`: the same as `client.ts`, but what only a WebSocket needs is a file of its own
 * (`/client-socket.js`). That one needs nothing of this one, so it does not matter whether they are of the same version, as
 * they may not be while a server is replaced, or behind a load balancer.
 */
export { RingsideError, subscribe, version } from './client.ts'
export { connect } from './lazy.ts'
