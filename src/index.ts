export {
  BrokerUnavailable,
  Problem,
  ringside,
  StreamRequest,
  type EventToPublish,
  type Grant,
  type GrantOf,
  type Ringside,
  type RingsideOptions
} from './app.ts'
/** So that `app.register(import('ringside-hub'))` works. */
export { ringside as default } from './app.ts'
export { ConfigError, readSettings, resolveSettings, Settings, type PartialSettings } from './config.ts'
export { createServer } from './process/server.ts'
