package dev.gantry.clients;

import java.util.Map;

import org.apache.rocketmq.client.exception.MQBrokerException;
import org.apache.rocketmq.client.exception.MQClientException;
import org.apache.rocketmq.client.producer.DefaultMQProducer;
import org.apache.rocketmq.common.TopicConfig;
import org.apache.rocketmq.common.message.Message;
import org.apache.rocketmq.tools.admin.DefaultMQAdminExt;

/** What the server must refuse, and say why: the client's own checks are switched off. */
final class RefusalScenarios {
    private static final int BODY_BYTES_MAX = 4 * 1024 * 1024;
    private static final int MESSAGE_ILLEGAL = 13;

    private RefusalScenarios() {
    }

    static void addTo(Map<String, Main.Scenario> all) {
        all.put("topic_name_with_illegal_characters_is_refused_and_says_so", RefusalScenarios::illegalTopic);
        all.put("body_over_four_mebibytes_is_refused_and_one_of_four_is_not", RefusalScenarios::largeBody);
    }

    private static void illegalTopic(World world) throws Exception {
        DefaultMQAdminExt admin = world.admin();
        for (String name : new String[] {"white space", "sla/sh", "um-l\u00e4ut"}) {
            TopicConfig topic = new TopicConfig(name, 4, 4, World.READ_AND_WRITE);
            MQClientException e = Check.refused(MQClientException.class, "topic " + name,
                () -> admin.createAndUpdateTopicConfig(world.server.broker, topic));
            Check.that(e.getErrorMessage() != null && e.getErrorMessage().contains("illegal"),
                "the refusal of topic " + name + " does not say what is wrong: " + e.getErrorMessage());
        }
    }

    private static void largeBody(World world) throws Exception {
        String topic = world.topic(1);
        DefaultMQProducer producer = world.producer();
        producer.setMaxMessageSize(2 * BODY_BYTES_MAX);
        producer.setCompressMsgBodyOverHowmuch(Integer.MAX_VALUE);
        producer.setSendMsgTimeout(30_000);
        World.send(producer, new Message(topic, new byte[BODY_BYTES_MAX]));
        MQBrokerException e = Check.refused(MQBrokerException.class, "body of 4 MiB and a byte",
            () -> producer.send(new Message(topic, new byte[BODY_BYTES_MAX + 1])));
        Check.same(MESSAGE_ILLEGAL, e.getResponseCode(), "response code");
        World.send(producer, World.message(topic, "TagA", "the connection still works"));
    }
}
