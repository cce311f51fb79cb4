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
export { ConfigError, readSettings, resolveSettings, Settings, type PartialSettings } from './config.ts'
export { createServer } from './process/server.ts'
