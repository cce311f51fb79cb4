export {
  BrokerUnavailable,
  Problem,
  resolveSettings,
  ringside,
  StreamRequest,
  type EventToPublish,
  type Grant,
  type GrantOf,
  type PartialSettings,
  type Ringside,
  type RingsideOptions
} from './app.ts'
export { ConfigError, readSettings, Settings } from './config.ts'
export { createServer } from './process/server.ts'
