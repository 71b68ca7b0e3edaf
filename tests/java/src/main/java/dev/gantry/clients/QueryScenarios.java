package dev.gantry.clients;

import java.util.List;
import java.util.Map;

import org.apache.rocketmq.client.QueryResult;
import org.apache.rocketmq.client.consumer.DefaultMQPullConsumer;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.client.producer.SendResult;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.common.message.MessageExt;

/** How a message is found again: by the id of its place, by its key, by its unique id. */
@SuppressWarnings("deprecation")
final class QueryScenarios {
    private static final long HOUR_MS = 3_600_000;

    private QueryScenarios() {
    }

    static void addTo(Map<String, Main.Scenario> all) {
        all.put("message_is_found_by_its_offset_id", QueryScenarios::byOffsetId);
        all.put("message_is_found_by_its_unique_id", QueryScenarios::byUniqueId);
        all.put("messages_are_found_by_their_key_and_no_others", QueryScenarios::byKey);
    }

    private static SendResult sendWithKeys(DefaultMQProducer producer, String topic, String keys, String body) throws Exception {
        Message message = World.message(topic, "TagA", body);
        message.setKeys(keys);
        return World.send(producer, message);
    }

    private static void byOffsetId(World world) throws Exception {
        String topic = world.topic(1);
        SendResult sent = sendWithKeys(world.producer(), topic, "k", "by offset id");
        DefaultMQPullConsumer reader = world.pullConsumer(world.name("finders"));
        MessageExt found = reader.viewMessage(topic, sent.getOffsetMsgId());
        Check.same("by offset id", Inbox.text(found), "body");
        Check.same(topic, found.getTopic(), "topic");
        Check.same(sent.getQueueOffset(), found.getQueueOffset(), "queue offset");
    }

    private static void byUniqueId(World world) throws Exception {
        String topic = world.topic(1);
        SendResult sent = sendWithKeys(world.producer(), topic, "k", "by unique id");
        DefaultMQPullConsumer reader = world.pullConsumer(world.name("finders"));
        // The index may lie a moment behind the log.
        Check.until("the unique id is found", () -> findable(reader, topic, sent.getMsgId()), sent::getMsgId);
        MessageExt found = reader.viewMessage(topic, sent.getMsgId());
        Check.same("by unique id", Inbox.text(found), "body");
    }

    private static boolean findable(DefaultMQPullConsumer reader, String topic, String id) throws Exception {
        try {
            return reader.viewMessage(topic, id) != null;
        } catch (MQClientException e) {
            return false;
        }
    }

    private static void byKey(World world) throws Exception {
        String topic = world.topic(2);
        DefaultMQProducer producer = world.producer();
        long beginMs = System.currentTimeMillis() - HOUR_MS;
        sendWithKeys(producer, topic, "order-1 customer-7", "first");
        sendWithKeys(producer, topic, "order-2 customer-7", "second");
        sendWithKeys(producer, topic, "order-3 customer-8", "third");
        DefaultMQPullConsumer reader = world.pullConsumer(world.name("finders"));
        Check.until("all keys are found", () -> count(reader, topic, "customer-7", beginMs) == 2
            && count(reader, topic, "order-3", beginMs) == 1, () -> count(reader, topic, "customer-7", beginMs));
        QueryResult result = reader.queryMessage(topic, "order-2", 32, beginMs, beginMs + 2 * HOUR_MS);
        List<MessageExt> found = result.getMessageList();
        Check.same(1, found.size(), "messages with the key order-2");
        Check.same("second", Inbox.text(found.get(0)), "body");
        Check.same(0, count(reader, topic, "order-4", beginMs), "messages with a key that nobody sent");
    }

    /** The client throws when it finds nothing. */
    private static int count(DefaultMQPullConsumer reader, String topic, String key, long beginMs) throws Exception {
        try {
            return reader.queryMessage(topic, key, 32, beginMs, beginMs + 2 * HOUR_MS).getMessageList().size();
        } catch (MQClientException e) {
            return 0;
        }
    }
}
