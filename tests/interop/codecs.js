// The codecs of ilp-packet, btp-packet, ilp-protocol-ildcp and oer-utils, behind a pipe.
// Reads one JSON array a line, [operation, argument], and answers with one JSON line:
// {"ok": result} or {"error": message}. Octets are hex, u64 decimal strings, times milliseconds.
'use strict'

const readline = require('readline')
const btp = require('btp-packet')
const ildcp = require('ilp-protocol-ildcp')
const ilp = require('ilp-packet')
const oer = require('oer-utils')

const bytes = (hex) => Buffer.from(hex, 'hex')
const hex = (buffer) => buffer.toString('hex')

function writeOer (write) {
  const writer = new oer.Writer()
  write(writer)
  return hex(writer.getBuffer())
}

function toProtocolData (subProtocols) {
  return subProtocols.map(([protocolName, contentType, data]) => ({ protocolName, contentType, data: bytes(data) }))
}

function fromProtocolData (protocolData) {
  return protocolData.map((sub) => [sub.protocolName, sub.contentType, hex(sub.data)])
}

const operations = {
  'write var-uint': (value) => writeOer((writer) => writer.writeVarUInt(value)),
  'read var-uint': (data) => oer.Reader.from(bytes(data)).readVarUInt().toString(),
  'write var-octets': (value) => writeOer((writer) => writer.writeVarOctetString(bytes(value))),
  'read var-octets': (data) => hex(oer.Reader.from(bytes(data)).readVarOctetString()),

  'write prepare': (value) => hex(ilp.serializeIlpPrepare({
    amount: value.amount,
    expiresAt: new Date(value.expires_at_ms),
    executionCondition: bytes(value.condition),
    destination: value.destination,
    data: bytes(value.data)
  })),
  'read prepare': (packet) => {
    const prepare = ilp.deserializeIlpPrepare(bytes(packet))
    return {
      amount: prepare.amount,
      expires_at_ms: prepare.expiresAt.getTime(),
      condition: hex(prepare.executionCondition),
      destination: prepare.destination,
      data: hex(prepare.data)
    }
  },

  'write fulfill': (value) => hex(ilp.serializeIlpFulfill({
    fulfillment: bytes(value.fulfillment),
    data: bytes(value.data)
  })),
  'read fulfill': (packet) => {
    const fulfill = ilp.deserializeIlpFulfill(bytes(packet))
    return { fulfillment: hex(fulfill.fulfillment), data: hex(fulfill.data) }
  },

  'write reject': (value) => hex(ilp.serializeIlpReject({
    code: value.code,
    triggeredBy: value.triggered_by,
    message: value.message,
    data: bytes(value.data)
  })),
  'read reject': (packet) => {
    const reject = ilp.deserializeIlpReject(bytes(packet))
    return {
      code: reject.code,
      triggered_by: reject.triggeredBy,
      message: reject.message,
      data: hex(reject.data)
    }
  },

  'write message': (value) => hex(btp.serializeMessage(value.request_id, toProtocolData(value.sub_protocols))),
  'write response': (value) => hex(btp.serializeResponse(value.request_id, toProtocolData(value.sub_protocols))),
  'write transfer': (value) => hex(btp.serializeTransfer(
    { amount: value.amount },
    value.request_id,
    toProtocolData(value.sub_protocols)
  )),
  'write error': (value) => hex(btp.serializeError(
    {
      code: value.code,
      name: value.name,
      triggeredAt: new Date(value.triggered_at_ms),
      data: value.data
    },
    value.request_id,
    toProtocolData(value.sub_protocols)
  )),
  'read frame': (frame) => {
    const { type, requestId, data } = btp.deserialize(bytes(frame))
    const value = { type, request_id: requestId, sub_protocols: fromProtocolData(data.protocolData) }
    if (type === btp.TYPE_TRANSFER) {
      value.amount = data.amount.toString()
    }
    if (type === btp.TYPE_ERROR) {
      value.code = data.code
      value.name = data.name
      value.triggered_at_ms = data.triggeredAt.getTime()
      value.data = data.data
    }
    return value
  },

  'write ildcp request': (expiresAtMs) => hex(ildcp.serializeIldcpRequest({ expiresAt: new Date(expiresAtMs) })),
  'write ildcp response': (value) => hex(ildcp.serializeIldcpResponse({
    clientAddress: value.address,
    assetScale: value.asset_scale,
    assetCode: value.asset_code
  })),
  'read ildcp response': (packet) => {
    const response = ildcp.deserializeIldcpResponse(bytes(packet))
    return {
      address: response.clientAddress,
      asset_scale: response.assetScale,
      asset_code: response.assetCode
    }
  }
}

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const [operation, argument] = JSON.parse(line)
  let answer
  try {
    answer = { ok: operations[operation](argument) }
  } catch (error) {
    answer = { error: String(error) }
  }
  process.stdout.write(JSON.stringify(answer) + '\n')
})
