package admin

import "github.com/hookauthz/hookauthz/policy"

// hint says of a denial which step of the decision failed and what is likely wrong, in the words of whoever must mend it.
type hint struct{ step, text string }

// hints holds one for each reason of a denial.
var hints = map[policy.Reason]hint{
	policy.NoPolicy:                {"policy", "No policy is for this host and path, or Envoy's route names one that does not exist or does not match. Compare match with the URL that the sender was given."},
	policy.AmbiguousPath:           {"policy", "The path has an escape, an empty or dot segment, or a semicolon, and could mean another one to the application. Give the sender a plain URL."},
	policy.Paused:                  {"pause", "Somebody has paused this endpoint, in its policy or as an incident action. The sender is asked to come again."},
	policy.SourceUnknown:           {"client address", "The client's address cannot be told by the policy's clientAddress. Is the proxy in front of Envoy among trustedProxies?"},
	policy.SourceDenied:            {"client address", "The address is denied, blocked, or not in source.allow. Has the sender published new addresses?"},
	policy.MethodNotAllowed:        {"method", "The policy takes other methods. Senders use POST; a GET is often a person or a scanner."},
	policy.UnsupportedMediaType:    {"content type", "The content type is not one of body.contentTypes. Some senders can be set to JSON or to a form."},
	policy.UpgradeRefused:          {"upgrade", "Upgrades and CONNECT carry bodies that nobody checks. No webhook sender asks for one."},
	policy.BodyPartial:             {"body", "Nothing proves that the whole body is here. Envoy's filter needs with_request_body without allow_partial_message."},
	policy.BodyTooLarge:            {"body", "The body is larger than body.maxBytes. Raise it if the sender's deliveries are that large."},
	policy.BodyNotRaw:              {"body", "Envoy sent the body as text, which can be forged. Set pack_as_bytes: true in its filter."},
	policy.BodyLengthMismatch:      {"body", "The body and content-length disagree: something on the way changes bodies, such as a decompressor before ext_authz."},
	policy.BodyMissing:             {"body", "There is no body. Set body.allowEmpty if the sender signs empty ones."},
	policy.SignatureMissing:        {"signature", "The signature header is not there: not the sender, or one whose webhook has no secret yet."},
	policy.SignatureMalformed:      {"signature", "The signature, or something it signs, cannot be read or occurs twice. Is the scheme the sender's, and does Envoy pass headers raw?"},
	policy.SignatureMismatch:       {"signature", "No secret version makes this signature: another secret at the sender, a body changed on the way, or a forgery."},
	policy.TimestampMissing:        {"timestamp", "The header with the time is not there. Is the scheme the sender's?"},
	policy.TimestampMalformed:      {"timestamp", "The time is not a number of the scheme's unit."},
	policy.TimestampOutOfTolerance: {"timestamp", "The signature is right, but too old or from the future: a late replay, or a clock that is wrong, here or there."},
	policy.SecretExpired:           {"secret", "It was made with a version that is revoked, outside its window, or a decoy. Does the sender still use the old secret?"},
	policy.SecretUnavailable:       {"secret", "No version can be used now: its file or variable is missing or empty, or its time has not come. See the page of secrets."},
	policy.TooManyFailures:         {"failures", "This address has failed too often at this endpoint. Valid deliveries still pass."},
	policy.Replayed:                {"replay", "This delivery was seen before: the sender repeats it, or somebody who has recorded it."},
	policy.InFlight:                {"replay", "The same delivery is with the application, which has not answered yet. The sender is asked to come again."},
	policy.RateLimited:             {"rate", "A rate limit is spent. Raise it if the sender's rate is rightful."},
	policy.StoreUnavailable:        {"store", "The store did not answer, and the policy denies then (onStoreFailure)."},
	policy.InternalError:           {"hookauthz", "hookauthz failed by its own fault. The log has the place; please report it."},
	policy.DeadlineExceeded:        {"hookauthz", "Envoy's deadline came first: its timeout is too short, or this server too busy."},
	policy.Overloaded:              {"hookauthz", "This server has too much to do. Add replicas, or raise --max-inflight-bytes."},
}
